# Partial runs, repairs, reruns, restarts, backfills, and runs that overlap.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('reruns');

sub value { return $node->safe_psql('postgres', $_[0]); }

sub error_of
{
	my ($result, $stdout, $stderr) = $node->psql('postgres', $_[0]);
	return $stderr;
}

sub ends
{
	my ($run) = @_;
	return value(qq{
		SELECT string_agg(status || ': ' || names, '; ' ORDER BY status) FROM
		(SELECT status, string_agg(task_name, ' ' ORDER BY task_no) AS names
		 FROM weir.task_run WHERE run_id = $run AND item_no = 0 GROUP BY status) AS x});
}

# What tasks did, in order: every task writes its name and the row audit id.
sub did { return value("SELECT string_agg(task || ' ' || audit, ', ' ORDER BY id) FROM public.did"); }
sub forget { value('TRUNCATE public.did'); return; }

value(q{
	CREATE TABLE public.did (id bigint GENERATED ALWAYS AS IDENTITY, task text, audit bigint, n bigint);
	CREATE TABLE public.gate (divisor integer);
	INSERT INTO public.gate VALUES (0)});

sub task
{
	my ($name, $phase, $depends_on, $sql) = @_;
	$sql //= 'SELECT 1';
	return qq({"name": "$name", "kind": "sql", "phase": "$phase", "depends_on": [)
	  . join(', ', map { qq("$_") } @$depends_on)
	  . qq(], "spec": {"sql": "$sql; INSERT INTO public.did (task, audit, n) VALUES ({{task.name}}, {{row_audit_id}}, {{params.n}})"}});
}

sub define
{
	my ($name, $tasks) = @_;
	my $json = '{"parameters": {"n": {"type": "bigint", "default": 1}}, "tasks": [' . join(",\n", @$tasks) . ']}';
	value("SELECT weir.create_pipeline('$name', \$json\$$json\$json\$::jsonb)");
	return;
}

# land -> clean -> publish, and clean -> report
my @tasks = (
	task('land', 'land', []),
	task('clean', 'transform', ['land'], 'SELECT 1 / divisor FROM public.gate'),
	task('publish', 'publish', ['clean']),
	task('report', 'publish', ['clean']));
define('daily', \@tasks);

# --- repair, with corrected parameters
my $run = weir_trigger($node, 'daily');
is(wait_for_run($node, $run), 'failed', 'the first run fails');
is(value("SELECT next_load_status::text || origin_row_audit_id::text FROM weir.pipeline_state"), "D$run", 'after landing');
like(error_of(qq{SELECT weir.repair($run, '{"m": 1}')}), qr/m/, 'a parameter that does not exist');
like(error_of(qq{SELECT weir.repair($run, '[1]')}), qr/object/, 'parameters that are none');
like(error_of(qq{SELECT weir.repair($run, tasks => '{nowhere}')}), qr/invalid selection of tasks: there is no task "nowhere"/, 'a task that does not exist');
like(error_of(qq{SELECT weir.rerun_from($run, 'nowhere')}), qr/there is no task "nowhere"/, 'nor here');
is(value('SELECT count(*) FROM weir.request'), '0', 'errors change nothing');
value('UPDATE public.gate SET divisor = 1');
value(qq{SELECT weir.repair($run, '{"n": 5}')});
is(wait_for_run($node, $run), 'succeeded', 'a repaired run succeeds');
is(value('SELECT string_agg(task || n, \' \' ORDER BY id) FROM public.did WHERE task <> \'report\''), 'land1 clean5 publish5', 'with the corrected parameter');
is(value("SELECT count(*) FROM weir.attempt WHERE run_id = $run"), '5', 'and its history');
is(value("SELECT repairs - 'requested_at' FROM (SELECT repairs->0 AS repairs FROM weir.runs WHERE run_id = $run) r"),
	value(q{SELECT jsonb_build_object('repair_no', 1, 'requested_by', current_user, 'params_before', jsonb_build_object('n', 1))}), 'who repaired it, and what its parameters were');

# --- what succeeded goes again only when it is named
like(error_of("SELECT weir.repair($run)"), qr/Its status is succeeded.*weir\.rerun_from/s, 'a run that succeeded is not repaired');
forget();
value("SELECT weir.rerun_from($run, 'clean')");
wait_until($node, 'the rerun is over', "SELECT status = 'succeeded' AND repair_no = 2 FROM weir.run WHERE run_id = $run");
is(value('SELECT string_agg(task || audit::text, \' \' ORDER BY task) FROM public.did'), "clean$run publish$run report$run", 'rerun_from: the task and all below, same row audit id');
forget();
value("SELECT weir.repair($run, tasks => '{report}')");
wait_until($node, 'the repair is over', "SELECT status = 'succeeded' AND repair_no = 3 FROM weir.run WHERE run_id = $run");
is(did(), "report $run", 'repair with tasks: exactly that');
forget();
value("SELECT weir.repair($run, tasks => '{clean}', downstream => true)");
wait_until($node, 'the repair is over', "SELECT status = 'succeeded' AND repair_no = 4 FROM weir.run WHERE run_id = $run");
is(value('SELECT string_agg(task, \' \' ORDER BY task) FROM public.did'), 'clean publish report', 'and with everything below it');
is(value("SELECT string_agg(concat_ws(' ', r->>'repair_no', r->>'tasks', r->>'downstream', r->>'params_before'), ', ' ORDER BY r->'repair_no') FROM weir.runs, jsonb_array_elements(repairs) r WHERE run_id = $run"),
	'1 {"n": 1}, 2 ["clean", "publish", "report"], 3 ["report"], 4 ["clean"] true', 'what each repair was asked to do');

# --- partial runs
forget();
my $partial = value("SELECT weir.trigger('daily', tasks => '{+clean}')");
is(wait_for_run($node, $partial), 'succeeded', 'a partial run');
is(ends($partial), 'skipped: publish report; succeeded: land clean', 'runs what is selected');
is(value("SELECT DISTINCT skip_reason FROM weir.task_run WHERE run_id = $partial AND status = 'skipped'"), 'not_selected', 'and says why not the rest');
is(value('SELECT next_load_status::text || last_run_id::text FROM weir.pipeline_state'), "P$run", 'it says nothing of the next start');
$partial = value("SELECT weir.trigger('daily', tasks => '{report,land+}')");
is(wait_for_run($node, $partial), 'succeeded', 'several selectors');
is(ends($partial), 'succeeded: land clean publish report', 'name everything here');
like(error_of("SELECT weir.trigger('daily', tasks => '{}')"), qr/a selection names 1 to/, 'an empty selection');
like(error_of("SELECT weir.trigger('daily', tasks => '{land+publish}')"), qr/"land\+publish" is no selector/, 'no selector');
like(error_of("SELECT weir.trigger('daily', tasks => ARRAY['land', NULL])"), qr/must not be null/, 'a null');

# A partial run after a failure behind landing uses what was landed.
value('UPDATE public.gate SET divisor = 0');
my $failed = weir_trigger($node, 'daily');
is(wait_for_run($node, $failed), 'failed', 'a failure behind landing');
value('UPDATE public.gate SET divisor = 1');
forget();
$partial = value("SELECT weir.trigger('daily', tasks => '{clean}')");
is(wait_for_run($node, $partial), 'succeeded', 'clean alone');
is(did(), "clean $failed", 'works on the rows that landed');
is(value('SELECT next_load_status::text || origin_row_audit_id::text FROM weir.pipeline_state'), "D$failed", 'the pipeline still has to be resumed');

# --- restart: D, with the same parameters; a reused landing does not run again in that run
like(error_of("SELECT weir.restart(0)"), qr/does not exist/, 'no such run');
my $restarted = value("SELECT weir.restart($failed)");
is(wait_for_run($node, $restarted), 'succeeded', 'restarted');
is(ends($restarted), 'reused: land; succeeded: clean publish report', 'after landing');
is(value("SELECT start_status::text || row_audit_id::text || trigger_name FROM weir.run WHERE run_id = $restarted"), "D${failed}run $failed", 'as D, with the row audit id of the landing');
like(error_of("SELECT weir.rerun_from($restarted, 'land')"), qr/task "land" of run $restarted cannot run again/, 'landed elsewhere');

# --- backfill
value(q{SELECT weir.create_pipeline('windows', '{"max_concurrent_runs": 5, "tasks": [{"name": "a", "kind": "sql",
	"spec": {"sql": "INSERT INTO public.windows VALUES ({{run.window_start}}, {{run.window_end}}, {{row_audit_id}}); SELECT pg_advisory_xact_lock_shared(81)"}}]}')});
value('CREATE TABLE public.windows (window_start timestamptz, window_end timestamptz, audit bigint)');
foreach my $bad (
	[ q{'2026-01-02', '2026-01-01', '1 day'}, qr/window_from before window_to/ ],
	[ q{'2026-01-01', '2026-01-02', '0'}, qr/must be above zero/ ],
	[ q{'2026-01-01', '2026-01-02', '-1 day'}, qr/must be above zero/ ],
	[ q{'2026-01-01', 'infinity', '1 day'}, qr/finite/ ],
	[ q{'2026-01-01', '2026-01-02', '1 millisecond'}, qr/at most 100000 windows/ ],
	[ q{'2026-01-01', '2026-01-02', NULL}, qr/must not be null/ ],
	[ q{'2026-01-01', '2026-01-02', '1 day', concurrency => 0}, qr/between 1 and/ ],
	[ q{'2026-01-01', '2026-01-02', '1 day', tasks => '{b}'}, qr/there is no task "b"/ ],
	[ q{'2026-01-01', '2026-01-02', '1 day', '{"x": 1}'}, qr/x/ ])
{
	my ($arguments, $expected) = @$bad;
	like(error_of("SELECT weir.backfill('windows', $arguments)"), $expected, "backfill: $arguments");
}
is(value('SELECT count(*) FROM weir.backfill'), '0', 'nothing was begun');

my $gate = $node->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(81)');
my $backfill = value(q{SELECT weir.backfill('windows', '2026-01-01', '2026-01-11 12:00', '1 day', concurrency => 2)});
wait_until($node, 'two windows are at work', "SELECT running = 2 FROM weir.backfills WHERE backfill_id = $backfill");
my $ordinary = weir_trigger($node, 'windows');
wait_for_status($node, $ordinary, 'a', 'running');
is(value("SELECT running || ' ' || queued || ' ' || runs FROM weir.backfills WHERE backfill_id = $backfill"), '2 9 11', 'an ordinary run goes before waiting windows');
like(value("SELECT detail FROM weir.why((SELECT max(run_id) FROM weir.run WHERE backfill_id = $backfill)) LIMIT 1"), qr/backfill $backfill/, 'why says what a window waits for');
kill9_backend($node, 'weir conductor');
$gate->quit;
wait_until($node, 'all windows are done', "SELECT succeeded = 11 FROM weir.backfills WHERE backfill_id = $backfill");
is(value(qq{SELECT count(*) || ' ' || count(DISTINCT w.window_start) || ' ' || max(w.window_end)::text FROM public.windows w JOIN weir.run ON run_id = audit WHERE backfill_id = $backfill}),
	value(q{SELECT '11 11 ' || timestamptz '2026-01-11 12:00'}), 'each window once, the last one short, over a crash');
is(value(q{SELECT coalesce(last_run_id = } . $ordinary . q{, false) FROM weir.pipeline_state JOIN weir.pipeline USING (pipeline_id) WHERE name = 'windows'}), 't', 'the pipeline remembers ordinary runs only');
$backfill = value(q{SELECT weir.pause_pipeline('windows'); SELECT weir.backfill('windows', '2026-01-01', '2026-02-01', '1 day')});
$backfill =~ s/^\s+//;
is(value("SELECT weir.cancel_backfill($backfill, 'not needed')"), '31', 'a backfill is cancelled');
wait_until($node, 'all of it', "SELECT not_succeeded = 31 FROM weir.backfills WHERE backfill_id = $backfill");
is(value("SELECT weir.cancel_backfill($backfill)"), '0', 'nothing is left to cancel');
like(error_of('SELECT weir.cancel_backfill(0)'), qr/does not exist/, 'no such backfill');

# --- overlap
my $hold = q{{"name": "a", "kind": "sql", "spec": {"sql": "SELECT pg_advisory_xact_lock_shared(82)"}}};
value(qq{SELECT weir.create_pipeline('skips', '{"on_overlap": "skip", "tasks": [$hold]}'),
	weir.create_pipeline('replaces', '{"on_overlap": "cancel_older", "tasks": [$hold]}'),
	weir.create_pipeline('orders', '{"tasks": [$hold]}')});
$gate = $node->background_psql('postgres');
$gate->query_safe('SELECT pg_advisory_lock(82)');
my $first = weir_trigger($node, 'skips');
wait_for_status($node, $first, 'a', 'running');
is(wait_for_run($node, weir_trigger($node, 'skips')), 'skipped', 'skip: the second run is skipped');
my $old = weir_trigger($node, 'replaces');
wait_for_status($node, $old, 'a', 'running');
my $new = weir_trigger($node, 'replaces');
is(wait_for_run($node, $old), 'cancelled', 'cancel_older: the first run goes');
is(value("SELECT cancel_reason FROM weir.run WHERE run_id = $old"), "run $new replaces it", 'and says for whom');
wait_for_status($node, $new, 'a', 'running');
my @orders = map { value("SELECT weir.trigger('orders', priority => $_)") } (0, 1, 7, -3, 7);
like(error_of("SELECT weir.trigger('orders', priority => 2000)"), qr/between -1000 and 1000/, 'a priority out of range');
$gate->quit;
wait_for_run($node, $_) foreach (@orders, $first, $new);
is(value("SELECT string_agg(priority::text, ' ' ORDER BY started_at) FROM weir.run WHERE run_id IN (" . join(', ', @orders[1 .. 4]) . ')'),
	'7 7 1 -3', 'queued runs start by priority');

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;
done_testing();
