# Batches side by side: six pipelines call the same five workers at once, half
# of them with workers that fail.  Parameters, statuses, errors, alerts and
# landings stay with their batch; so they do when what failed is repaired and
# restarted side by side, beside a batch that still fails and one that is new.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('batches');
my @batches = qw(a b c d e f);
my @workers = map { "w$_" } 1 .. 5;
my %broken = (a => ['w1'], c => [ 'w1', 'w3' ], e => \@workers);
my %run;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub create { value("SELECT weir.create_pipeline('$_[0]', \$json\$" . $json->encode($_[1]) . '$json$)'); return }
sub sql { my ($name, $sql, $depends_on, %more) = @_; return { name => $name, kind => 'sql', spec => { sql => $sql }, depends_on => $depends_on // [], %more } }
sub sorted { return join("\n", sort @_) }

value(q{
	CREATE TABLE public.did (what text, batch text, worker text, run_id bigint, audit bigint);
	CREATE TABLE public.alert (id bigint GENERATED ALWAYS AS IDENTITY, batch text, worker text, run_id bigint, message text);
	CREATE TABLE public.broken (batch text, worker text);
	CREATE FUNCTION public.work(batch text, worker text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM public.broken b WHERE b.batch = work.batch AND b.worker = work.worker) THEN
			RAISE EXCEPTION 'broken: %', work.batch || '.' || work.worker;
		END IF;
		RETURN work.batch || '.' || work.worker;
	END $$});
foreach my $batch (sort keys %broken)
{
	value("INSERT INTO public.broken VALUES ('$batch', '$_')") foreach @{ $broken{$batch} };
}

foreach my $worker (@workers)
{
	my $did = "VALUES ('%s', {{params.batch}}, '$worker', {{run.id}}, {{row_audit_id}})";
	create($worker, {
		max_concurrent_runs => 6, parameters => { batch => { type => 'text', required => JSON::PP::true } },
		tasks => [
			sql('land', 'INSERT INTO public.did ' . sprintf($did, 'landed'), [], phase => 'land'),
			{ name => 'gate', kind => 'wait', spec => { signal => 'go' }, depends_on => ['land'] },
			sql('work', "SELECT public.work({{params.batch}}, '$worker') AS made", ['gate']),
			sql('done', 'INSERT INTO public.did ' . sprintf($did, 'done'), ['work']),
			sql('alert', "INSERT INTO public.alert (batch, worker, run_id, message) VALUES ({{params.batch}}, '$worker', {{run.id}}, {{tasks.work.error}})",
				[ { task => 'work', condition => 'failed' } ]) ] });
}
foreach my $batch (@batches)
{
	create("batch_$batch", {
		parameters => { batch => { type => 'text', default => $batch } },
		tasks => [
			map({ { name => $_, kind => 'pipeline', spec => { pipeline => $_, params => { batch => '{{params.batch}}' } } } } @workers),
			{ name => 'closing', kind => 'noop', depends_on => \@workers },
			sql('alert', "INSERT INTO public.alert (batch, worker, run_id, message) VALUES ({{params.batch}}, 'all', {{run.id}}, concat_ws(' ', "
				. join(', ', map { "{{tasks.$_.status}}::text" } @workers) . '))', \@workers, run_if => 'at_least_one_failed') ] });
}

# So many workers of these runs wait for the signal, which lets them all go at once.
sub all_wait
{
	my ($n) = @_;
	wait_until($node, "$n workers wait", "SELECT count(*) = $n FROM weir.attempt WHERE status = 'started' AND kind_state->>'wait' = 'signal'");
	return;
}
sub all_go
{
	my ($n) = @_;
	all_wait($n);
	is(value(q{SELECT weir.signal('go')}), $n, "$n workers go on at once");
	return;
}

# "failed: failed succeeded ...", the run of a batch and its workers.
sub statuses
{
	my ($batch) = @_;
	return value("SELECT status || ': ' || (SELECT string_agg(t.status, ' ' ORDER BY t.task_no) FROM weir.task_run t"
		. " WHERE t.run_id = r.run_id AND t.kind = 'pipeline') FROM weir.run r WHERE run_id = $run{$batch}");
}
sub expected_statuses
{
	my ($batch, $broken) = @_;
	my %is_broken = map { $_ => 1 } @{ $broken // [] };
	return (%is_broken ? 'failed: ' : 'succeeded: ') . join(' ', map { $is_broken{$_} ? 'failed' : 'succeeded' } @workers);
}

# What a batch, or one of its workers, has of another: nothing.
sub strangers
{
	return value(q{
		SELECT string_agg(what, E'\n') FROM (
			SELECT 'parameter of run ' || r.run_id AS what FROM weir.run r JOIN weir.run p ON p.run_id = r.parent_run_id
				WHERE r.params IS DISTINCT FROM p.params OR p.pipeline_name <> 'batch_' || (r.params->>'batch')
			UNION ALL SELECT 'output of run ' || r.run_id FROM weir.run r JOIN weir.task_run t USING (run_id)
				WHERE t.task_name = 'work' AND t.status = 'succeeded' AND t.output->'rows'->0->>'made' IS DISTINCT FROM (r.params->>'batch') || '.' || r.pipeline_name
			UNION ALL SELECT 'child ' || (t.output->>'run_id') FROM weir.task_run t JOIN weir.run r ON r.run_id = (t.output->>'run_id')::bigint
				WHERE t.kind = 'pipeline' AND (r.parent_task_run_id, r.pipeline_name, r.status) IS DISTINCT FROM (t.task_run_id, t.task_name, t.output->>'status')
			UNION ALL SELECT 'error ' || e.message FROM weir.errors e JOIN weir.run r USING (run_id)
				WHERE e.message !~ ('broken: ' || (r.params->>'batch') || '\.w[1-5]$') OR (r.pipeline_name LIKE 'w_' AND e.message !~ (r.pipeline_name || '$'))
			UNION ALL SELECT 'message of run ' || r.run_id FROM weir.run r, regexp_matches(r.error_message, 'broken: (.)', 'g') m WHERE m[1] <> r.params->>'batch'
			UNION ALL SELECT 'alert ' || a.id FROM public.alert a LEFT JOIN weir.run r USING (run_id)
				WHERE r.params->>'batch' IS DISTINCT FROM a.batch OR r.pipeline_name <> CASE a.worker WHEN 'all' THEN 'batch_' || a.batch ELSE a.worker END
				OR (a.worker <> 'all' AND a.message !~ ('broken: ' || a.batch || '\.' || a.worker || '$'))
			UNION ALL SELECT format('%s.%s ended with the landing of others', d.batch, d.worker) FROM public.did d WHERE d.what = 'done'
				AND NOT EXISTS (SELECT FROM public.did l WHERE l.what = 'landed' AND (l.batch, l.worker, l.audit) = (d.batch, d.worker, d.audit))) x});
}
sub did { return value("SELECT string_agg(batch || '.' || worker, E'\\n' ORDER BY batch || '.' || worker COLLATE \"C\") FROM public.did WHERE what = '$_[0]'") }
sub alerts { return value("SELECT string_agg(batch || '.' || worker, E'\\n' ORDER BY batch || '.' || worker COLLATE \"C\") FROM public.alert WHERE id > $_[0]") }

# --- six at once
$run{$_} = weir_trigger($node, "batch_$_") foreach @batches;
all_go(30);
foreach my $batch (@batches)
{
	is(wait_for_run($node, $run{$batch}), $broken{$batch} ? 'failed' : 'succeeded', "batch $batch");
	is(statuses($batch), expected_statuses($batch, $broken{$batch}), "batch $batch: its workers");
	is(value("SELECT count(*) FROM weir.errors e JOIN weir.run r USING (run_id) WHERE r.run_id = $run{$batch} OR r.parent_run_id = $run{$batch}") > 0,
		!!$broken{$batch}, "batch $batch: errors where there are any");
}
is(strangers(), '', 'nobody sees parameters, outputs, errors or alerts of another');
is(did('landed'), sorted(map { my $batch = $_; map { "$batch.$_" } @workers } @batches), 'every worker landed once for every batch');
is(alerts(0), sorted(map { my $batch = $_; map { "$batch.$_" } 'all', @{ $broken{$batch} } } keys %broken), 'who fails is told of, once, and nobody else');
is(value(q{SELECT message FROM public.alert WHERE (batch, worker) = ('c', 'all')}), 'failed succeeded failed succeeded succeeded', 'with the statuses of the batch');
is(value('SELECT count(*) || \' \' || count(DISTINCT row_audit_id) FROM weir.landings'), '8 8', 'what failed after landing left a landing each');

# --- repaired, restarted, still broken and new, side by side and over a crash
my %first = map { my $batch = $_; map { $_->[0] => $_->[1] } map { [ split(/\|/) ] }
	split(/\n/, value("SELECT '$batch.' || pipeline_name, row_audit_id FROM weir.run WHERE parent_run_id = $run{$batch}")) } @batches;
my $told = value('SELECT max(id) FROM public.alert');
value(q{DELETE FROM public.broken WHERE batch <> 'a'});
# The new one first: all that others landed is there to be taken.
$run{b} = weir_trigger($node, 'batch_b');
all_wait(5);
value("SELECT weir.repair($run{a}); SELECT weir.repair($run{c})");
$run{e} = value("SELECT weir.restart($run{e})");
# Those that are repaired have waited already, and go on in the runs they have.
all_wait(10);
kill9_backend($node, 'weir conductor');
all_go(10);
foreach my $case ([ a => ['w1'] ], [ b => [] ], [ c => [] ], [ e => [] ])
{
	my ($batch, $broken) = @$case;
	is(wait_for_run($node, $run{$batch}), @$broken ? 'failed' : 'succeeded', "batch $batch again");
	is(statuses($batch), expected_statuses($batch, $broken), "batch $batch again: its workers");
}
is(strangers(), '', 'still nobody sees anything of another');
is(did('landed'), sorted((map { my $batch = $_; map { "$batch.$_" } @workers } @batches), map { "b.$_" } @workers), 'only the new one landed again');
is(did('done'), sorted(grep({ $_ ne 'a.w1' } map { my $batch = $_; map { "$batch.$_" } @workers } @batches), map { "b.$_" } @workers),
	'what had succeeded did not go again');
is(value("SELECT count(*) FROM weir.run WHERE parent_run_id IN ($run{a}, $run{c})"), 10, 'what is repaired goes on in the runs it has, whatever others have called since');
is(alerts($told), '', 'of which somebody has been told');
foreach my $batch (qw(a c e))
{
	my %last = map { split(/\|/) } split(/\n/,
		value("SELECT DISTINCT ON (pipeline_name) '$batch.' || pipeline_name, row_audit_id FROM weir.run WHERE parent_run_id = $run{$batch} ORDER BY pipeline_name, run_id DESC"));
	is_deeply(\%last, { map { $_ => $first{$_} } keys %last }, "batch $batch: every worker went on with what it landed itself");
}
is(value(q{SELECT string_agg(pipeline_name || ' ' || (params->>'batch'), ', ') FROM weir.landings}), 'w1 a', 'one landing waits');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), '0', 'no attempt is left over');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;
done_testing();
