# The run log stays small: the conductor removes runs that are too old or too
# many, in slices, and keeps what somebody may still need.  A D restart finds
# what it needs however old it is; a kill -9 in the middle leaves every run
# whole or gone; a trigger does not wait for a sweep, and a sweep for nobody.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('retention', conf => "autovacuum_naptime = 1s\nlog_min_messages = info\n");

sub value { return $node->safe_psql('postgres', $_[0]); }

# A sweep from start to end; the sweep before it may still be under way.
sub sweep
{
	foreach (1 .. 2)
	{
		my $before = value('SELECT coalesce(pruned_at::text, \'never\') FROM weir.retention');
		$node->reload;
		wait_until($node, 'a sweep has ended', "SELECT coalesce(pruned_at::text, 'never') <> '$before' FROM weir.retention") or die 'no sweep';
	}
	return;
}

sub age_all
{
	value("UPDATE weir.run SET queued_at = queued_at - interval '1 year', started_at = started_at - interval '1 year', ended_at = ended_at - interval '1 year'");
	return;
}

sub runs_of { return value("SELECT coalesce(string_agg(run_id::text, ' ' ORDER BY run_id), '') FROM weir.run WHERE pipeline_name = '$_[0]'"); }

# Rows of the log whose run is gone, and runs of made-up pipelines that lost a part of theirs.
sub torn
{
	return value(q{
		SELECT (SELECT count(*) FROM (SELECT run_id FROM weir.task_run UNION ALL SELECT run_id FROM weir.attempt UNION ALL SELECT run_id FROM weir.error
			UNION ALL SELECT run_id FROM weir.activity UNION ALL SELECT run_id FROM weir.row_count) x WHERE NOT EXISTS (SELECT FROM weir.run r WHERE r.run_id = x.run_id))
			|| ' ' || count(*) FROM weir.run r WHERE r.pipeline_name LIKE 'many%' AND r.triggered_by = 'made up' AND ((SELECT count(*) FROM weir.task_run t WHERE t.run_id = r.run_id) <> 5
			OR (SELECT count(*) FROM weir.attempt a WHERE a.run_id = r.run_id) <> 5 OR (SELECT count(*) FROM weir.activity a WHERE a.run_id = r.run_id) <> 1)});
}

# Runs of a year ago, each with 5 tasks.
sub make_up
{
	my ($pipeline, $n) = @_;
	value(qq{
		CREATE TEMP TABLE mine AS SELECT nextval('weir.run_id_seq') AS run_id FROM generate_series(1, $n);
		INSERT INTO weir.run (run_id, pipeline_id, pipeline_name, status, triggered_by, owner, queued_at, started_at, ended_at)
		SELECT m.run_id, p.pipeline_id, p.name, 'succeeded', 'made up', p.owner, y, y, y FROM mine m, weir.pipeline p, LATERAL (SELECT now() - interval '1 year' AS y) t WHERE p.name = '$pipeline';
		INSERT INTO weir.task_run (run_id, task_no, task_name, kind, phase, status) SELECT run_id, n, 't' || n, 'noop', 'land', 'succeeded' FROM mine, generate_series(1, 5) n;
		INSERT INTO weir.attempt (task_run_id, attempt_no, run_id, token, status) SELECT task_run_id, 1, run_id, 't', 'succeeded' FROM weir.task_run JOIN mine USING (run_id);
		INSERT INTO weir.activity (run_id, activity, phase, status) SELECT run_id, 'a', 'land', 'succeeded' FROM mine;});
	return;
}

# --- the number: the definition's own limit is kept by the conductor
my $noop = '[{"name": "a", "kind": "noop"}]';
value(qq{SELECT weir.create_pipeline('few', '{"tasks": $noop}'), weir.create_pipeline('ever', '{"retention": null, "tasks": $noop}'),
	weir.create_pipeline('plain', '{"tasks": $noop}')});
my @few;
foreach (1 .. 8)
{
	push @few, weir_trigger($node, 'few');
	wait_for_run($node, $few[-1]);
}
my @ever = map { weir_trigger($node, 'ever') } 1 .. 3;
my @plain = map { weir_trigger($node, 'plain') } 1 .. 3;
is(wait_for_run($node, $ever[-1]), 'succeeded', 'runs');
is(wait_for_run($node, $plain[-1]), 'succeeded', 'more runs');
sweep();
is(runs_of('few'), "@few", 'by default nothing of this goes');
value(qq{SELECT weir.alter_pipeline('few', '{"retention": {"runs": 3}, "tasks": $noop}')});
wait_until($node, 'only three runs are left', "SELECT count(*) = 3 FROM weir.run WHERE pipeline_name = 'few'");
is(runs_of('few'), "@few[5 .. 7]", 'a limit takes effect when it is set: the last three runs are kept');
is(torn(), '0 0', 'and of the others nothing is left');

# --- the age: by default too; a pipeline's latest run stays
age_all();
sweep();
is(join('|', map { runs_of($_) } qw(few plain ever)), "$few[7]|$plain[2]|@ever", 'by default ninety days; for ever when the definition says so');
is(torn(), '0 0', 'of the others nothing is left');
like(value("SELECT state || ': ' || detail FROM weir.status WHERE component = 'retention'"), qr/^done: 0 runs are past their age, \d+ were removed so far$/, 'weir.status says so');
is(weir_trigger($node, 'few') > 0 && wait_for_run($node, weir_trigger($node, 'few')), 'succeeded', 'the pipeline runs on');

# --- D: the landing is found again, however old
value(q{CREATE TABLE public.did (task text, audit bigint); CREATE TABLE public.gate (divisor integer); INSERT INTO public.gate VALUES (0);
	SELECT weir.create_pipeline('daily', '{"retention": {"runs": 1, "age": "1 hour"}, "tasks": [
		{"name": "land", "kind": "sql", "phase": "land", "spec": {"sql": "INSERT INTO public.did VALUES (''land'', {{row_audit_id}})"}},
		{"name": "clean", "kind": "sql", "depends_on": ["land"], "spec": {"sql": "SELECT 1 / divisor FROM public.gate; INSERT INTO public.did VALUES (''clean'', {{row_audit_id}})"}}]}')});
my @daily;
foreach (1 .. 4)
{
	push @daily, weir_trigger($node, 'daily');
	is(wait_for_run($node, $daily[-1]), 'failed', "try $_ fails after landing");
}
age_all();
sweep();
is(runs_of('daily'), "$daily[0] $daily[3]", 'D: the run that landed and the last one stay');
value('UPDATE public.gate SET divisor = 1');
my $resumed = weir_trigger($node, 'daily');
is(wait_for_run($node, $resumed), 'succeeded', 'the restart succeeds');
is(value(q{SELECT string_agg(task || ' ' || audit, ', ' ORDER BY task DESC) FROM public.did}), "land $daily[0], clean $daily[0]", 'it resumed after the landing of long ago');
age_all();
sweep();
is(runs_of('daily'), $resumed, 'after that the others go');

# --- a repair of what is old
value('UPDATE public.gate SET divisor = 0');
my $repaired = weir_trigger($node, 'daily');
is(wait_for_run($node, $repaired), 'failed', 'a run fails');
age_all();
sweep();
value('UPDATE public.gate SET divisor = 1');
value("SELECT weir.repair($repaired)");
is(wait_for_run($node, $repaired, 'succeeded'), 'succeeded', 'a year later it is repaired');

# --- kill -9 in the middle: every run is whole or gone, and the next conductor goes on
value(qq{SELECT weir.create_pipeline('many', '{"tasks": $noop}')});
make_up('many', 30000);
$node->reload;
wait_until($node, 'the sweep is under way', "SELECT count(*) BETWEEN 2 AND 29900 FROM weir.run WHERE pipeline_name = 'many'");
kill9_backend($node, 'weir conductor');
is(torn(), '0 0', 'after kill -9 every run is whole or gone');
wait_until($node, 'all but the latest are removed', "SELECT count(*) = 1 FROM weir.run WHERE pipeline_name = 'many'");
is(torn(), '0 0', 'the next conductor goes on');
wait_until($node, 'vacuum has been there', "SELECT bool_and(n_dead_tup < 10000) FROM pg_stat_user_tables WHERE relname IN ('run', 'task_run', 'attempt', 'activity')");
ok(1, 'autovacuum comes for what was removed');

# --- beside a sweep
value(qq{SELECT weir.create_pipeline('many_more', '{"tasks": $noop}')});
make_up('many_more', 60000);
my $reader = $node->background_psql('postgres', on_error_stop => 0);
my $oldest = value("SELECT min(run_id) FROM weir.run WHERE pipeline_name = 'many_more'");
$reader->query_safe("BEGIN; SELECT FROM weir.run WHERE run_id = $oldest FOR KEY SHARE");
$node->reload;
wait_until($node, 'the sweep is under way', "SELECT count(*) < 59900 FROM weir.run WHERE pipeline_name = 'many_more'");
my @beside;
foreach (1 .. 20)
{
	push @beside, weir_trigger($node, 'plain');
	is(wait_for_run($node, $beside[-1]), 'succeeded', 'a run beside the sweep') if @beside % 5 == 0;
}
ok(value("SELECT count(*) FROM weir.run WHERE pipeline_name = 'many_more'") > 1, 'and the sweep goes on');
my $median = value("SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM started_at - queued_at) * 1000) FROM weir.run WHERE run_id IN (" . join(', ', @beside) . ')');
cmp_ok($median, '<', 100, "triggers do not wait for it (median $median ms)");
wait_until($node, 'the sweep is over', "SELECT count(*) = 2 FROM weir.run WHERE pipeline_name = 'many_more'");
is(value("SELECT min(run_id) FROM weir.run WHERE pipeline_name = 'many_more'"), $oldest, 'a run that somebody holds is left alone');
$reader->query_safe('ROLLBACK');

# A table that somebody locks: the sweep gives up for now, the conductor does not.
make_up('many', 500);
my $conductor = backend_pid($node, 'weir conductor');
my $log = -s $node->logfile;
$reader->query_safe('BEGIN; LOCK TABLE weir.row_count IN ACCESS EXCLUSIVE MODE');
$node->reload;
$node->wait_for_log(qr/canceling statement due to lock timeout/, $log);
is(wait_for_run($node, weir_trigger($node, 'plain')), 'succeeded', 'a run beside a locked table');
is(backend_pid($node, 'weir conductor'), $conductor, 'the conductor is the same');
$reader->query_safe('ROLLBACK');
is(torn(), '0 0', 'nothing was removed by halves');
$reader->quit;
ok(value('SELECT weir.prune()') > 0, 'weir.prune() does not wait until the conductor tries again');
is(value("SELECT count(*) FROM weir.run WHERE pipeline_name IN ('many', 'many_more')"), '2', 'and removes what is old');

# --- asleep: the next sweep is in an hour, for there were runs
sweep();
wait_for_run($node, weir_trigger($node, 'plain'));
$conductor = backend_pid($node, 'weir conductor');
my $timeout;
foreach (1 .. 200)
{
	my $call = '';
	eval { $call = PostgreSQL::Test::Utils::slurp_file("/proc/$conductor/syscall"); };
	my ($number, @arguments) = split / /, $call;
	if (defined $number && $number =~ /^(232|281|22)$/)
	{
		$timeout = hex(substr($arguments[3], -8) =~ s/^0x//r);
		last if $timeout > 1_800_000;
	}
	value('SELECT 1');
}
SKIP:
{
	skip 'the system call of a process cannot be seen here', 2 unless defined $timeout;
	cmp_ok($timeout, '>', 1_800_000, 'the conductor sleeps');
	cmp_ok($timeout, '<=', 3_600_000, 'for an hour at most');
}

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;
done_testing();
