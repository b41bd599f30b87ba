# Lost answers while the clock of the database server is an hour off: what was
# begun is found all the same, and nothing is begun twice.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirClock;
use WeirCuts;
use WeirTest;

plan skip_all => $_ foreach WeirClock::missing();
my $clock = WeirClock->new;

foreach my $hours (1, -1)
{
	my $name = $hours > 0 ? 'an hour ahead' : 'an hour behind';
	$clock->set(3600 * $hours);
	my $node = weir_node($hours > 0 ? 'ahead' : 'behind', start => 0, conf => "weir.max_sql_workers = 1\n");
	$clock->start($node);
	$node->safe_psql('postgres', 'CREATE EXTENSION weir');
	my $cuts = WeirCuts->new($node, weir_cloud(undef, speed => 20));
	# nothing of the request has arrived, all of it has, half of the answer came back
	my @cuts = map { +{ start => $_ } } [ 'request', 10, 'reset' ], [ 'response', 1, 'close' ], [ 'response', 100, 'reset' ];
	$cuts->round({ map { $_ => [@cuts] } sort keys %WeirCuts::kinds }, name => $name);
	# a crash asks in another way
	$_->{start}[2] = 'late' foreach @cuts;
	$cuts->round({ map { $_ => [@cuts] } sort keys %WeirCuts::kinds }, name => "$name, killed", kill => 1);
	# what is refused because of its date says so
	my $cloud = $cuts->{cloud};
	my ($pipeline, $caller) = $cuts->define('put', 1);
	$cloud->add_fault(caller => $caller, fault => 'status', status => 403, times => undef, headers => { 'x-ms-error-code' => 'AuthenticationFailed' });
	my $run = weir_trigger($node, $pipeline);
	is(wait_for_run($node, $run), 'failed', "$name: refused");
	like($node->safe_psql('postgres', "SELECT detail FROM weir.error WHERE run_id = $run"), qr/clock of the database server is (59|60|61) minutes (ahead of|behind) that of the service: set it/, '... and why');
	$node->stop;
}
done_testing();
