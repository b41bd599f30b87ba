# One transaction that logs hundreds of executions of a pipeline leaves as many
# versions of its state, which nobody may remove before it ends.  Neither it
# nor others beside it look through them, and what it takes back is not found.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('own_versions');

sub value { return $node->safe_psql('postgres', $_[0]) }
my $pair = q{SELECT weir.log_execution_end("ExecutionID") FROM weir.log_execution_start('outside');};
value($pair);
my $pipeline = value(q{SELECT pipeline_id FROM weir.pipeline WHERE name = 'outside'});

# Pages that a session looks at to find the state.  The first look of a session fills its caches.
sub pages
{
	my ($session) = @_;
	my $plan = $session->query_safe("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT weir._state_place($pipeline)");
	my ($hit, $read) = $plan =~ /"Shared Hit Blocks": (\d+),\s+"Shared Read Blocks": (\d+)/ or die $plan;
	return $hit + $read;
}

sub session
{
	my $session = $node->background_psql('postgres');
	$session->set_query_timer_restart;
	pages($session);
	return $session;
}

my ($writer, $other) = (session(), session());
my ($own_before, $other_before) = (pages($writer), pages($other));

$writer->query_safe('BEGIN');
$writer->query_safe("$pair\n" x 50) foreach (1 .. 12);
my $own = pages($writer);
cmp_ok($own, '<', $own_before + 10, "six hundred executions later in the same transaction: $own_before pages, then $own");
my $others = pages($other);
cmp_ok($others, '<', $other_before + 10, "for who does not see them: $other_before pages, then $others");

# --- a place that was taken back, and one of a transaction that was
my $last = q{SELECT last_run_id FROM weir.pipeline_state WHERE pipeline_id = } . $pipeline;
my $found = qq{SELECT s.last_run_id FROM weir.pipeline_state s WHERE s.ctid = weir._state_place($pipeline)};
my $kept = $writer->query_safe($last);
$writer->query_safe('SAVEPOINT a');
$writer->query_safe($pair) foreach (1 .. 3);
$writer->query_safe($found);
$writer->query_safe('ROLLBACK TO a');
is($writer->query_safe($found), $kept, 'after a rollback to a savepoint it is the state before it');
is($writer->query_safe(q{SELECT "LastExecutionID" FROM weir.log_execution_start('outside')}), $kept, 'and the next execution follows that');
$writer->query_safe('ROLLBACK');
my $committed = value($last);
isnt($committed, $kept, 'all of it is taken back');
is($_->query_safe($found), $committed, 'and found by nobody') foreach ($writer, $other);
$own = pages($writer);
cmp_ok($own, '<', $own_before + 10, "after it: $own_before pages, then $own");

# --- once it is committed, it is the state for all
$writer->query_safe('BEGIN');
$writer->query_safe("$pair\n" x 50) foreach (1 .. 12);
$writer->query_safe('COMMIT');
$committed = $writer->query_safe($last);
is($_->query_safe($found), $committed, 'after the commit everybody finds the last one') foreach ($writer, $other);
$others = pages($other);
cmp_ok($others, '<', $other_before + 10, "and easily: $other_before pages, then $others");

$_->quit foreach ($writer, $other);
$node->stop;
done_testing();
