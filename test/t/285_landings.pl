# Runs that go on side by side and fail after landing: each leaves its own
# landing, a restart resumes the one of the run it repeats, and no two runs
# resume the same.  Also when the server dies while one is being resumed.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('landings');

sub value { return $node->safe_psql('postgres', $_[0]); }

value('CREATE TABLE public.landed (region text, audit bigint); CREATE TABLE public.published (region text, audit bigint)');
my $definition = <<'END';
{"max_concurrent_runs": 4, "parameters": {"region": {"type": "text", "default": "all"}}, "tasks": [
	{"name": "land", "kind": "sql", "phase": "land",
		"spec": {"sql": "INSERT INTO public.landed VALUES ({{params.region}}, {{row_audit_id}})"}},
	{"name": "decide", "kind": "wait", "depends_on": ["land"], "spec": {"approval": "publish?"}},
	{"name": "publish", "kind": "sql", "phase": "publish", "depends_on": ["decide"],
		"spec": {"sql": "INSERT INTO public.published SELECT region, audit FROM public.landed WHERE audit = {{row_audit_id}}"}}]}
END
value("SELECT weir.create_pipeline('regions', \$json\$$definition\$json\$::jsonb)");

sub asks
{
	my ($run) = @_;
	wait_until($node, "run $run asks",
		"SELECT count(*) = 1 FROM weir.attempt WHERE run_id = $run AND status = 'started' AND kind_state->>'wait' = 'approval'");
	return;
}

sub begin
{
	my ($region) = @_;
	my $run = weir_trigger($node, 'regions', params => qq({"region": "$region"}));
	asks($run);
	return $run;
}

sub end_as
{
	my ($run, $verdict) = @_;
	value("SELECT weir.$verdict($run, 'decide')");
	my $expected = $verdict eq 'approve' ? 'succeeded' : 'failed';
	is(wait_for_run($node, $run), $expected, "run $run: $verdict");
	return;
}

sub state { return value("SELECT concat_ws(' ', next_load_status, origin_row_audit_id) FROM weir.pipelines WHERE name = '$_[0]'"); }
sub started { return value("SELECT concat_ws(' ', start_status, row_audit_id, last_run_id) FROM weir.run WHERE run_id = $_[0]"); }
sub landings
{
	return value(q{SELECT string_agg(concat_ws(' ', row_audit_id, run_id, params->>'region', 'by ' || resumed_by_run_id), ', ' ORDER BY row_audit_id) FROM weir.landings});
}

# --- three at once: one succeeds, two fail after landing
my ($north, $south, $east) = map { begin($_) } qw(north south east);
end_as($north, 'reject');
is(state('regions'), "D $north", 'a run that fails beside others leaves its landing');
end_as($south, 'reject');
end_as($east, 'approve');
is(state('regions'), "D $north", 'the success of a later run does not take it back');
is(landings(), "$north $north north, $south $south south", 'each left its own');

like(value(q{SELECT detail FROM weir.why('regions')}), qr/landings are to be resumed \(D\), see weir\.landings/, 'why says so');

# --- whoever is for something else lands itself
my $west = begin('west');
is((split ' ', started($west))[0], 'E', 'a run with other parameters resumes nothing');
is(value(q{SELECT action || ': ' || reason FROM weir.plan('regions', '{"region": "west"}') WHERE wave = 0}) =~ s/;.*//r,
	'E: what failed runs landed is for other parameters, or is being resumed: this run lands its own', 'and weir.plan says so');
like(value(q{SELECT action || ': ' || reason FROM weir.plan('regions', '{"region": "south"}') WHERE wave = 0}),
	qr/^D: run $south failed after landing: landing is reused, with row_audit_id $south/, 'or that it would');

# --- the same parameters resume; the second one beside it does not
my $again = begin('south');
is(started($again), "D $south $south", 'the same parameters resume their own landing, not the oldest');
is(landings(), "$north $north north, $south $south south by $again", 'which is taken');
my $beside = begin('south');
is((split ' ', started($beside))[0], 'E', 'nobody else resumes it meanwhile');
end_as($again, 'reject');
is(landings(), "$north $north north, $south $again south", 'a failed resume leaves it again');
end_as($beside, 'approve');
end_as($west, 'approve');

# --- restart: of a run, its own landing
my $restart = value("SELECT weir.restart($north)");
asks($restart);
is(started($restart), "D $north $north", 'a restart resumes the landing of its run');
my $second = value("SELECT weir.restart($north)");
asks($second);
is((split ' ', started($second))[0], 'E', 'a second restart does not');
end_as($second, 'approve');

# --- kill -9 while it is being resumed
kill9_backend($node, 'weir conductor%');
is(landings(), "$north $north north by $restart, $south $again south", 'a crash gives nothing away');
my $third = begin('north');
is((split ' ', started($third))[0], 'E', 'and nobody takes it');
end_as($third, 'approve');
end_as($restart, 'approve');
is(landings(), "$south $again south", 'what was resumed is done with');
is(state('regions'), "D $south", 'the other one waits');
$restart = value("SELECT weir.restart($south)");
asks($restart);
is(started($restart), "D $south $again", 'the restart of the first resumes what the second left');
end_as($restart, 'approve');
is(landings(), '', 'nothing is left');
is(state('regions'), 'P', 'the next start processes');
is(value('SELECT string_agg(region, \' \' ORDER BY region, audit) FROM public.landed'),
	'east north north north south south west', 'landed as often as a run landed');
is(value('SELECT count(*) FROM public.landed FULL JOIN public.published USING (region, audit) WHERE landed.audit IS NULL OR published.audit IS NULL'),
	'0', 'and everything that landed is published');
is(value('SELECT count(*) - count(DISTINCT audit) FROM public.published'), '0', 'once');

# --- a repair keeps its landing
my $run = begin('north');
end_as($run, 'reject');
value("SELECT weir.repair($run)");
asks($run);
my $other = begin('north');
is((split ' ', started($other))[0], 'E', 'a landing whose run is being repaired is taken');
end_as($run, 'approve');
is(landings(), '', 'and done with when the repair is');
end_as($other, 'approve');
is(state('regions'), 'P', 'nothing is left');

# --- what a later run said counts again when the last landing is done with
$run = begin('north');
end_as($run, 'reject');
my $late = begin('north');
is(started($late), "D $run $run", 'resumed');
$other = weir_trigger($node, 'regions', params => '{"region": "bad"}');
asks($other);
value("SELECT weir.cancel($other)");
is(wait_for_run($node, $other), 'cancelled', 'cancelled after landing');
is(landings(), "$run $run north by $late, $other $other bad", 'is a landing too');
end_as($late, 'approve');
is(state('regions'), "D $other", 'it waits');

# --- given up: rows of all landings are to be deleted
is(value("SELECT count(*) FROM weir.rollback_execution($other) r WHERE r = $other"), '1', 'rollback names the rows');
is(landings(), '', 'and nothing resumes any more');
is(state('regions'), 'R', 'the next start lands again');

# --- one at a time: whatever starts next resumes, with any parameters
value("SELECT weir.alter_pipeline('regions', weir.describe_pipeline('regions') || '{\"max_concurrent_runs\": 1}')");
$run = begin('north');
end_as($run, 'reject');
$other = begin('south');
is(started($other), "D $run $run", 'the pipeline is one load then');
end_as($other, 'approve');
is(state('regions'), 'P', 'and it is done');

$node->stop;
done_testing();
