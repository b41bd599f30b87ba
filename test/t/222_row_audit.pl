# Row audit ids of landed data survive all that makes tasks run again.  Every
# run that goes again here began with the landing of another: as D, as a part
# of a pipeline that is to be resumed, or as a window beside one; so its row
# audit id is not the id of the run it would be mistaken for.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('row_audit');

sub value { return $node->safe_psql('postgres', $_[0]); }

# The rows that landed and what was made of them, and whether "clean" works.
value(q{
	CREATE TABLE public.landed (audit bigint, for_day date);
	CREATE TABLE public.did (id bigint GENERATED ALWAYS AS IDENTITY, task text, run bigint, audit bigint, of_run bigint, n_landed bigint);
	CREATE TABLE public.gate (divisor integer);
	INSERT INTO public.gate VALUES (0)});
sub gate { value("UPDATE public.gate SET divisor = $_[0]"); return; }

# A task notes by which id it knows its rows, and how many there are under it.
my $note = 'INSERT INTO public.did (task, run, audit, of_run, n_landed) SELECT {{task.name}}, {{run.id}}, {{row_audit_id}}, {{run.row_audit_id}}, '
  . '(SELECT count(*) FROM public.landed WHERE audit = {{row_audit_id}})';
my $tasks = qq{[
	{"name": "land", "kind": "sql", "phase": "land",
	 "spec": {"sql": "INSERT INTO public.landed VALUES ({{row_audit_id}}, {{run.window_start}}::text::date); $note"}},
	{"name": "clean", "kind": "sql", "depends_on": ["land"], "spec": {"sql": "SELECT 1 / divisor FROM public.gate; $note"}},
	{"name": "items", "kind": "for_each", "depends_on": ["clean"], "spec": {"items": [1, 2],
	 "task": {"kind": "sql", "spec": {"sql": "$note"}}}},
	{"name": "publish", "kind": "sql", "phase": "publish", "depends_on": ["items"], "spec": {"sql": "$note"}}]};
value(qq{SELECT weir.create_pipeline('daily', '{"tasks": $tasks}'), weir.create_pipeline('windows', '{"max_concurrent_runs": 4, "tasks": $tasks}')});

sub forget { value('TRUNCATE public.did'); return; }

# "clean items[1] items[2] publish": what ran since, all of it in this run, with
# this row audit id by both of its names, and with the one landing under it.
sub did_is
{
	my ($run, $audit, $expected, $name) = @_;
	is(value(qq{SELECT concat_ws(' ', string_agg(task, ' ' ORDER BY id), count(*) FILTER (WHERE (run, audit, of_run, n_landed) IS DISTINCT FROM ($run, $audit, $audit, 1)))
		FROM (SELECT min(id) AS id, regexp_replace(task, '\\[.*', '[]') AS task, run, audit, of_run, n_landed FROM public.did GROUP BY 2, 3, 4, 5, 6) d}),
		"$expected 0", $name)
	  or diag(value('SELECT string_agg(d::text, E\'\\n\' ORDER BY id) FROM public.did d'));
	return;
}
sub started { return value("SELECT concat_ws(' ', start_status, row_audit_id) FROM weir.runs WHERE run_id = $_[0]"); }
sub next_start { return value("SELECT concat_ws(' ', next_load_status, origin_row_audit_id) FROM weir.pipelines WHERE name = '$_[0]'"); }

sub ends
{
	my ($run, $status, $name) = @_;
	is(wait_for_run($node, $run), $status, $name);
	return;
}

# Repairs are taken in by the conductor; until then the run is what it was.
sub again
{
	my ($run, $call, $status, $name) = @_;
	forget();
	my $repairs = value("SELECT repair_no FROM weir.run WHERE run_id = $run");
	value("SELECT weir.$call");
	wait_until($node, "run $run goes again", "SELECT repair_no > $repairs FROM weir.run WHERE run_id = $run");
	ends($run, $status, $name);
	return;
}

# --- a run that landed, and one that resumes it and fails again
my $origin = weir_trigger($node, 'daily');
ends($origin, 'failed', 'a run fails after landing');
my $resumed = weir_trigger($node, 'daily');
ends($resumed, 'failed', 'the next one resumes it and fails');
is(started($resumed), "D $origin", 'with the row audit id of the landing');

again($resumed, "repair($resumed)", 'failed', 'it is repaired in vain');
is(started($resumed), "D $origin", 'its row audit id is that of the landing');
is(next_start('daily'), "D $origin", 'and that is still to be resumed');
gate(1);
again($resumed, "repair($resumed)", 'succeeded', 'it is repaired');
did_is($resumed, $origin, 'clean items[] publish', 'repair: what runs again has the row audit id of the landing');
is(started($resumed), "D $origin", 'so has the run');
is(next_start('daily'), 'P', 'the landing is done with');

# --- rerun_from, of what succeeded
again($resumed, "rerun_from($resumed, 'clean')", 'succeeded', 'it runs again from a task on');
did_is($resumed, $origin, 'clean items[] publish', 'rerun_from: the row audit id of the landing');
again($resumed, "rerun_from($resumed, 'items[2]')", 'succeeded', 'and from an item');
did_is($resumed, $origin, 'items[] publish', 'rerun_from of an item: the same');
gate(0);
again($resumed, "rerun_from($resumed, 'clean')", 'failed', 'it fails when it runs again');
is(next_start('daily'), "D $origin", 'the same landing is to be resumed once more');

# --- restart, of a run that was resumed, repaired and rerun; over a crash
my $restarted = value("SELECT weir.restart($resumed)");
ends($restarted, 'failed', 'a restart fails');
is(started($restarted), "D $origin", 'it resumed the landing');
gate(1);
value(q{BEGIN; LOCK TABLE public.gate IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'gate'});
forget();
value("SELECT weir.repair($restarted)");
wait_for_status($node, $restarted, 'clean', 'running');
kill9_backend($node, 'weir conductor');
value(q{ROLLBACK PREPARED 'gate'});
ends($restarted, 'succeeded', 'it is repaired over a crash');
did_is($restarted, $origin, 'clean items[] publish', 'restart, repair and crash: the row audit id of the landing');
is(next_start('daily'), 'P', 'the landing is done with again');

# --- a part of a pipeline whose landing is to be resumed
gate(0);
$origin = weir_trigger($node, 'daily');
ends($origin, 'failed', 'another landing');
my $part = value(q{SELECT weir.trigger('daily', tasks => '{clean+}')});
ends($part, 'failed', 'a part of the pipeline fails');
is(started($part), "D $origin", 'it works on what landed');
gate(1);
again($part, "repair($part)", 'succeeded', 'the part is repaired');
did_is($part, $origin, 'clean items[] publish', 'repair of a part: the row audit id of the landing');
again($part, "repair($part, tasks => '{publish}')", 'succeeded', 'a task of it goes again');
did_is($part, $origin, 'publish', 'with the same');
again($part, "rerun_from($part, 'items')", 'succeeded', 'or some of them');
did_is($part, $origin, 'items[] publish', 'with the same');
is(next_start('daily'), "D $origin", 'the pipeline as a whole is still to be resumed');
forget();
my $whole = weir_trigger($node, 'daily');
ends($whole, 'succeeded', 'and is');
did_is($whole, $origin, 'clean items[] publish', 'with the row audit id of the landing');
again($part, "rerun_from($part, 'publish')", 'succeeded', 'the part may go again after that');
did_is($part, $origin, 'publish', 'still with the same');
is(started($whole) . ', ' . started($part), "D $origin, D $origin", 'no id has moved');

# --- windows of a backfill beside a landing that waits: each has its own
gate(0);
my $ordinary = weir_trigger($node, 'windows');
ends($ordinary, 'failed', 'an ordinary run fails after landing');
my $backfill = value(q{SELECT weir.backfill('windows', '2026-01-01', '2026-01-04', '1 day', concurrency => 2)});
wait_until($node, 'all windows have failed', "SELECT not_succeeded = 3 FROM weir.backfills WHERE backfill_id = $backfill");
my @windows = split /\n/, value("SELECT run_id FROM weir.run WHERE backfill_id = $backfill ORDER BY window_start");
is(started($_), "E $_", "window $_ landed itself") foreach @windows;
is(next_start('windows'), "D $ordinary", 'the ordinary landing waits');
gate(1);
again($windows[1], "repair($windows[1])", 'succeeded', 'a window is repaired');
did_is($windows[1], $windows[1], 'clean items[] publish', 'repair of a window: its own landing');
again($windows[1], "rerun_from($windows[1], 'items')", 'succeeded', 'and runs again');
did_is($windows[1], $windows[1], 'items[] publish', 'rerun_from of a window: its own landing');
forget();
my $again = value("SELECT weir.restart($windows[2])");
ends($again, 'succeeded', 'a window is restarted');
is(started($again), "D $windows[2]", 'it resumes what the window had landed');
did_is($again, $windows[2], 'clean items[] publish', 'restart of a window: the row audit id of its landing');
is(next_start('windows'), "D $ordinary", 'the ordinary landing waits still');
forget();
my $ordinary_again = weir_trigger($node, 'windows');
ends($ordinary_again, 'succeeded', 'and is resumed');
did_is($ordinary_again, $ordinary, 'clean items[] publish', 'with its row audit id');

# --- nothing landed twice, and nothing worked on what did not land
is(value('SELECT count(*) - count(DISTINCT audit) FROM public.landed'), '0', 'every id landed once');
is(value('SELECT count(*) FROM weir.run r WHERE NOT EXISTS (SELECT FROM public.landed WHERE audit = r.row_audit_id)'), '0', 'no run has an id under which nothing landed');

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;
done_testing();
