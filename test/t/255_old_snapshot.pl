# While somebody holds an old snapshot nothing that died is removed.  The
# conductor does not look at it again and again: it knows below which id no run
# of a pipeline lives, and with which priorities its runs are queued.  Runs that
# come to life elsewhere are found all the same: committed late, queued
# together, repaired, of another priority, or told of in notes that were lost.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('snapshot');
my $counts = $node->safe_psql('postgres', "SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_stat_statements'");

sub value { return $node->safe_psql('postgres', $_[0]) }
sub pipeline { my ($name, $tasks, $more) = @_; return value("SELECT weir.create_pipeline('$name', '{\"tasks\": [$tasks]$more}')") }
sub close_gate { return value("BEGIN; SELECT pg_advisory_xact_lock(1); PREPARE TRANSACTION 'gate'") }
sub open_gate { return value("ROLLBACK PREPARED 'gate'") }
sub session
{
	my $session = $node->background_psql('postgres');
	$session->set_query_timer_restart;	# its patience is for a statement, not for all of them
	$session->query_safe('BEGIN');
	return $session;
}

sub committed { my ($session) = @_; $session->query_safe('COMMIT'); return $session->quit }
my $noop = '{"name": "a", "kind": "noop"}';
my $gated = '{"name": "a", "kind": "sql", "spec": {"sql": "SELECT pg_advisory_xact_lock_shared(1)"}}';

pipeline($_, $noop, '') foreach ('late', 'many', 'again');
pipeline('window', $noop, ', "max_concurrent_runs": 3');
pipeline($_, $gated, '') foreach ('one', 'lost', 'ranks');
pipeline('skips', $gated, ', "on_overlap": "skip"');

# Nothing of the pipeline lives, and the conductor has seen that.
sub passed_by { my ($name) = @_; return is(wait_for_run($node, weir_trigger($node, $name)), 'succeeded', "$name: later runs pass") }

# --- committed late
{
	my $session = session();
	my $early = $session->query_safe("SELECT weir.trigger('late')");
	passed_by('late') foreach (1 .. 3);
	committed($session);
	is(wait_for_run($node, $early), 'succeeded', 'a run with a lower id than some that ended');
}

# --- committed late, while one with a higher id waits
{
	close_gate();
	my $first = weir_trigger($node, 'one');
	wait_for_status($node, $first, 'a', 'running');
	my $session = session();
	my $early = $session->query_safe("SELECT weir.trigger('one')");
	my $next = weir_trigger($node, 'one');
	passed_by('late');
	committed($session);
	passed_by('late');
	open_gate();
	is(wait_for_run($node, $_), 'succeeded', 'each ends') foreach ($first, $early, $next);
	is(value(qq{SELECT started_at < (SELECT started_at FROM weir.run WHERE run_id = $next) FROM weir.run WHERE run_id = $early}), 't', 'the lower id first');
}

# --- several of one transaction, and the first of them began before others
{
	my $session = session();
	my @early = map { $session->query_safe("SELECT weir.trigger('many')") } (1 .. 3);
	passed_by('many') foreach (1 .. 2);
	committed($session);
	is(wait_for_run($node, $_), 'succeeded', 'each of several runs queued together') foreach @early;
}

# --- a restart, and a backfill
{
	my $old = weir_trigger($node, 'again');
	is(wait_for_run($node, $old), 'succeeded', 'a run to restart');
	my $session = session();
	my $early = $session->query_safe("SELECT weir.restart($old)");
	$session->query_safe(q{SELECT weir.backfill('window', '2026-01-01', '2026-01-04', '1 day', concurrency => 3)});
	passed_by($_) foreach ('again', 'window');
	committed($session);
	is(wait_for_run($node, $early), 'succeeded', 'a restart that is committed late');
	ok(wait_until($node, 'the backfill ends', q{SELECT count(*) = 3 FROM weir.run WHERE pipeline_name = 'window' AND backfill_id IS NOT NULL AND status = 'succeeded'}),
		'and a backfill');
}

# --- what goes on again counts
{
	my $part = value(q{SELECT weir.trigger('one', tasks => '{a}')});
	is(wait_for_run($node, $part), 'succeeded', 'a run of some tasks');
	passed_by('one');
	close_gate();
	value("SELECT weir.repair($part, tasks => '{a}')");
	wait_for_status($node, $part, 'a', 'running');
	my $next = weir_trigger($node, 'one');
	# The conductor has looked at the queue when this, behind it, has ended.
	passed_by('late');
	is(value("SELECT status FROM weir.run WHERE run_id = $next"), 'queued', 'a repaired run is one of those that go on');
	open_gate();
	is(wait_for_run($node, $_), 'succeeded', 'both end') foreach ($part, $next);
}

# --- priorities that the conductor has not seen, together and one by one, few and many
{
	passed_by('ranks');
	close_gate();
	my $first = weir_trigger($node, 'ranks');
	wait_for_status($node, $first, 'a', 'running');
	my $session = session();
	my %queued = map { $_ => $session->query_safe("SELECT weir.trigger('ranks', priority => $_)") } (3, -2, 7);
	$queued{$_} = value("SELECT weir.trigger('ranks', priority => $_)") foreach (1, -5);
	committed($session);
	passed_by('late');
	# more than are remembered
	$queued{$_} = value("SELECT weir.trigger('ranks', priority => $_)") foreach (20, -20, 19, 18, -19, 17, -18, 30);
	passed_by('late');
	open_gate();
	is(wait_for_run($node, $_), 'succeeded', 'a queued run ends') foreach values %queued;
	is( value(q{SELECT string_agg(priority::text, ' ' ORDER BY started_at) FROM weir.run WHERE pipeline_name = 'ranks' AND priority <> 0}),
		join(' ', sort { $b <=> $a } keys %queued), 'runs of fourteen priorities start in their order');
	passed_by('ranks');
}

# --- more runs at once than are remembered
{
	pipeline('crowd', '{"name": "a", "kind": "wait", "spec": {"signal": "go"}}', ', "max_concurrent_runs": 70');
	my $going_on = sub { value(q{SELECT count(*) FROM weir.run WHERE pipeline_name = 'crowd' AND live = 'a'}) };
	value(q{SELECT weir.trigger('crowd')}) foreach (1 .. 60);
	value(q{SELECT count(weir.trigger('crowd')) FROM generate_series(1, 40)});
	ok(wait_until($node, 'they start', q{SELECT count(*) = 70 FROM weir.run WHERE pipeline_name = 'crowd' AND live = 'a'}), 'as many runs as may');
	passed_by('late');
	is($going_on->(), 70, 'and not one more');
	my ($one) = value(q{SELECT min(run_id) FROM weir.run WHERE pipeline_name = 'crowd'});
	value("SELECT weir.signal('go', run_id => $one)");
	is(wait_for_run($node, $one), 'succeeded', 'one ends');
	ok(wait_until($node, 'the next starts', q{SELECT count(*) = 71 FROM weir.run WHERE pipeline_name = 'crowd' AND started_at IS NOT NULL}), 'one starts');
	passed_by('late');
	is($going_on->(), 70, 'one for the one that ended');
	value(q{SELECT count(weir.cancel(run_id)) FROM weir.run WHERE pipeline_name = 'crowd' AND live IS NOT NULL});
	ok(wait_until($node, 'they end', q{SELECT count(*) = 0 FROM weir.run WHERE pipeline_name = 'crowd' AND live IS NOT NULL}), 'all are cancelled');
}

# --- somebody holds the pipeline at the moment a run has to be skipped
{
	close_gate();
	my $first = weir_trigger($node, 'skips');
	wait_for_status($node, $first, 'a', 'running');
	my $session = session();
	$session->query_safe(q{SELECT FROM weir.pipeline_state s JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'skips' FOR UPDATE OF s});
	my $next = weir_trigger($node, 'skips');
	passed_by('late') foreach (1 .. 2);
	is(value("SELECT status FROM weir.run WHERE run_id = $next"), 'queued', 'nothing is done with it while the pipeline is held');
	committed($session);
	is(wait_for_run($node, $next), 'skipped', 'it is skipped then');
	open_gate();
	is(wait_for_run($node, $first), 'succeeded', 'the first one ends');
}

# --- more notes than there is room for, while no other run of the pipeline may start
{
	my $session = session();
	my $early = $session->query_safe("SELECT weir.trigger('lost')");
	value("SELECT count(weir.create_pipeline('n' || n, '{\"tasks\": [$noop]}')) FROM generate_series(1, 300) n");
	close_gate();
	my $before = weir_trigger($node, 'lost');
	wait_for_status($node, $before, 'a', 'running');
	$session->query_safe("SELECT count(weir.trigger('n' || n)) FROM generate_series(1, 300) n");
	committed($session);
	ok(wait_until($node, 'the others end', q{SELECT count(*) = 300 FROM weir.run WHERE pipeline_name ~ '^n[0-9]' AND status = 'succeeded'}), 'all others run');
	open_gate();
	is(wait_for_run($node, $_), 'succeeded', 'when notes do not fit, nothing is believed') foreach ($before, $early);
}

# --- under an old snapshot
SKIP:
{
	skip 'pg_stat_statements is not installed', 1 unless $counts;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'weir, pg_stat_statements'\npg_stat_statements.track = top\n");
	$node->restart;
	value('CREATE EXTENSION pg_stat_statements');
	my $work = '{"name": "a", "kind": "noop"}, {"name": "b", "kind": "sql", "depends_on": ["a"], "spec": {"sql": "SELECT 1"}}';

	# Pages looked at by the conductor and its workers, by each look of a kind
	my $pages = sub {
		value('SELECT pg_stat_statements_reset()');
		is(wait_for_run($node, weir_trigger($node, 'aged')), 'succeeded', 'a run') foreach (1 .. 20);
		return map { value("SELECT ceil(sum(shared_blks_hit)::numeric / sum(calls)) FROM pg_stat_statements WHERE query LIKE '$_'") }
		  ('SELECT % FROM weir.pipeline_state s %FOR UPDATE%', '% FROM unnest(%) AS n (pipeline_id, first, going_on, priorities, floors)%', '% WITH ORDINALITY AS w (pipeline_id, first, %');
	};
	my $place = q{SELECT (s.ctid::text::point)[0] FROM weir.pipeline_state s JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'aged'};
	value('ALTER TABLE weir.pipeline_state SET (autovacuum_enabled = off)');
	value(q{SELECT count(weir.drop_pipeline(name)) FROM weir.pipeline WHERE name ~ '^n[0-9]'});
	# Without one, new versions of a state find room beside the old ones.
	pipeline('tidy', $noop, ', "max_concurrent_runs": 20');
	my $size = value(q{SELECT pg_relation_size('weir.pipeline_state') / 8192});
	foreach (1 .. 80)
	{
		value(q{SELECT count(weir.trigger('tidy')) FROM generate_series(1, 15)});
		wait_until($node, 'they end', q{SELECT count(*) = 0 FROM weir.run WHERE pipeline_name = 'tidy' AND live = 'q'});
	}
	my $later = value(q{SELECT pg_relation_size('weir.pipeline_state') / 8192});
	cmp_ok($later, '<', $size + 6, "twelve hundred runs later $size pages of states are $later");

	pipeline('aged', $gated, ', "max_concurrent_runs": 2');
	close_gate();
	my $long = weir_trigger($node, 'aged');
	wait_for_status($node, $long, 'a', 'running');
	value(qq{SELECT weir.alter_pipeline('aged', '{"tasks": [$work], "max_concurrent_runs": 2}')});
	my $holder = session();
	$holder->query_safe('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ');
	$holder->query_safe('SELECT count(*) FROM weir.run');
	my ($state_before, $queue_before, $known_before) = $pages->();
	value(qq{SELECT weir.alter_pipeline('aged', '{"tasks": [$noop], "max_concurrent_runs": 20}')});
	value(q{SELECT count(weir.trigger('aged')) FROM generate_series(1, 2000)});
	ok(wait_until($node, 'it has aged', q{SELECT count(*) = 0 FROM weir.run WHERE pipeline_name = 'aged' AND live = 'q'}), 'two thousand runs later');
	value(qq{SELECT weir.alter_pipeline('aged', '{"tasks": [$work], "max_concurrent_runs": 2}')});
	# Nothing lives at this moment: no plan may be made for that.
	value('ANALYZE weir.run, weir.task_run, weir.attempt, weir.pipeline_state');
	my ($state, $queue, $known) = $pages->();
	cmp_ok($state, '<', $state_before + 5, "for the state: $state_before pages, then $state");
	cmp_ok($queue, '<', $queue_before + 10, "for what may start: $queue_before pages, then $queue");
	cmp_ok($known, '<', $known_before + 10, "for what is known of it: $known_before pages, then $known");
	value(qq{SELECT weir.alter_pipeline('aged', '{"tasks": [$work], "max_concurrent_runs": $_}')}) foreach (3 .. 30, 2);
	(undef, $queue) = $pages->();
	cmp_ok($queue, '<', $queue_before + 10, "nor for thirty versions more: $queue");

	# Room that becomes free far before the end of the table is used again, and the newest versions are there then.
	my $end = value($place);
	value('VACUUM weir.pipeline_state');
	value(qq{SELECT weir.alter_pipeline('aged', '{"tasks": [$noop], "max_concurrent_runs": 20}')});
	foreach (1 .. 20)
	{
		last if value($place) < $end;
		value(q{SELECT count(weir.trigger('aged')) FROM generate_series(1, 50)});
		wait_until($node, 'they end', q{SELECT count(*) = 0 FROM weir.run WHERE pipeline_name = 'aged' AND live = 'q'});
	}
	value(qq{SELECT weir.alter_pipeline('aged', '{"tasks": [$work], "max_concurrent_runs": 2}')});
	cmp_ok(value($place), '<', $end, 'the state is before its older versions now');
	($state, $queue, $known) = $pages->();
	cmp_ok($state, '<', $state_before + 5, "for the state, wherever it is: $state pages");
	cmp_ok($queue, '<', $queue_before + 10, "for what may start: $queue pages");
	my $look = q{SELECT weir._state_place(pipeline_id) FROM weir.pipeline WHERE name = 'aged'};
	my $pages_of_look = sub {
		value('SELECT pg_stat_statements_reset()');
		value($look);
		return value(q{SELECT sum(shared_blks_hit) FROM pg_stat_statements WHERE query LIKE 'SELECT weir.\_state\_place%'});
	};
	my $look_before = $pages_of_look->();
	$holder->query_safe($look);
	cmp_ok($pages_of_look->(), '<', $look_before + 20, 'what the old snapshot sees misleads nobody');

	# Somebody holds the pipeline: what is put off is looked for again, and nothing more than that.
	{
		my $locks = q{FROM pg_stat_statements WHERE query LIKE 'SELECT % FROM weir.pipeline_state s %FOR UPDATE SKIP LOCKED'};
		my $session = session();
		$session->query_safe(q{SELECT FROM weir.pipeline_state s JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'aged' FOR UPDATE OF s});
		value('SELECT pg_stat_statements_reset()');
		my $run = weir_trigger($node, 'aged');
		ok(wait_until($node, 'it is tried', "SELECT sum(calls) >= 4 $locks"), 'a run is put off, and again');
		cmp_ok(value("SELECT ceil(max(shared_blks_hit::numeric / calls)) $locks"), '<', $state_before + 5, 'trying to lock does not go through older versions');
		is(value(q{SELECT count(*) FROM pg_stat_statements WHERE query LIKE 'WITH RECURSIVE p (pipeline_id)%'}), 0, 'not all queues are looked through for it');
		committed($session);
		is(wait_for_run($node, $run), 'succeeded', 'it goes on');
	}

	open_gate();
	is(wait_for_run($node, $long), 'succeeded', 'all this beside a run that went on');

	# Executions of an outside orchestrator write the state twice each.
	my $pairs = sub {
		my ($n) = @_;
		value('SELECT pg_stat_statements_reset()');
		$node->safe_psql('postgres', qq{SELECT "ExecutionID" AS run FROM weir.log_execution_start('outside') \\gset\nSELECT weir.log_execution_end(:run);\n} x $n);
		return value("SELECT ceil(sum(shared_blks_hit)::numeric / $n) FROM pg_stat_statements WHERE query LIKE '%weir.log\\_execution%'");
	};
	$pairs->(5);
	my $pair_before = $pairs->(20);
	$pairs->(2000);
	my $pair = $pairs->(20);
	cmp_ok($pair, '<', $pair_before + 20, "for an execution: $pair_before pages, then $pair");
	committed($holder);
}

$node->stop;
done_testing();
