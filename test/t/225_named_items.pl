# Repairs down to one item of a for_each that is named, whatever became of it.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('named_items', conf => "weir.max_sql_workers = 4\n");

sub value { return $node->safe_psql('postgres', $_[0]); }

value(q{
	CREATE TABLE public.bad (n bigint PRIMARY KEY);
	CREATE TABLE public.done (run_id bigint, n bigint, audit_id bigint);
	CREATE FUNCTION public.work(run bigint, item bigint, audit bigint) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.done VALUES (run, item, audit);
		IF EXISTS (SELECT FROM public.bad WHERE n = item) THEN RAISE EXCEPTION 'item % is bad', item; END IF;
	END$$});
value(q[SELECT weir.create_pipeline('each', '{"tasks": [
	{"name": "load", "kind": "for_each", "spec": {"items": [1, 2, 3, 4, 5], "concurrency": 2,
	 "task": {"kind": "sql", "spec": {"sql": "SELECT public.work({{run.id}}, {{item}}, {{row_audit_id}})"}}}},
	{"name": "after", "kind": "noop", "depends_on": ["load"]}]}')]);

# "load=failed/1 after=blocked/0 [1]=succeeded/1 ...": status and attempts
sub tasks
{
	my ($run) = @_;
	return value(qq{SELECT string_agg(replace(task_name, 'load[', '[') || '=' || status || '/' || attempt_no, ' ' ORDER BY task_no, item_no)
		FROM weir.task_runs WHERE run_id = $run});
}

sub refused
{
	my ($sql, $expected, $name) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);
	like($err, $expected, $name);
	return;
}

value('INSERT INTO public.bad VALUES (2), (4)');
my $run = weir_trigger($node, 'each');
is(wait_for_run($node, $run), 'failed', 'two items fail');
is(tasks($run), 'load=failed/1 after=blocked/0 [1]=succeeded/1 [2]=failed/1 [3]=succeeded/1 [4]=failed/1 [5]=succeeded/1', 'and these alone');

# --- one of those that failed
value('DELETE FROM public.bad WHERE n = 2');
value("SELECT weir.repair($run, tasks => '{load[2]}')");
is(wait_for_run($node, $run), 'failed', 'one of them is repaired');
is(tasks($run), 'load=failed/2 after=blocked/0 [1]=succeeded/1 [2]=succeeded/2 [3]=succeeded/1 [4]=failed/1 [5]=succeeded/1', 'the other was left alone');
is(value("SELECT error_message FROM weir.task_runs WHERE run_id = $run AND task_name = 'load'"), '1 of 5 items failed; item 4: item 4 is bad', 'and is what is wrong now');

# --- the rest, as ever; a mark of before is none now
value('DELETE FROM public.bad');
value("SELECT weir.repair($run)");
is(wait_for_run($node, $run), 'succeeded', 'the rest');
is(tasks($run), 'load=succeeded/3 after=succeeded/1 [1]=succeeded/1 [2]=succeeded/2 [3]=succeeded/1 [4]=succeeded/2 [5]=succeeded/1', 'is what had failed');

# --- items that succeeded, with what follows
value("SELECT weir.rerun_from($run, 'load[3]')");
is(wait_for_run($node, $run), 'succeeded', 'an item that succeeded goes again');
is(tasks($run), 'load=succeeded/4 after=succeeded/2 [1]=succeeded/1 [2]=succeeded/2 [3]=succeeded/2 [4]=succeeded/2 [5]=succeeded/1', 'with what is downstream');
value("SELECT weir.repair($run, tasks => '{load[1], load[5]}')");
is(wait_for_run($node, $run), 'succeeded', 'two items');
is(tasks($run), 'load=succeeded/5 after=succeeded/2 [1]=succeeded/2 [2]=succeeded/2 [3]=succeeded/2 [4]=succeeded/2 [5]=succeeded/2', 'without what is downstream');
is(value("SELECT string_agg(n || ':' || c, ' ' ORDER BY n) FROM (SELECT n, count(*) AS c FROM public.done WHERE run_id = $run AND audit_id = $run GROUP BY n) x"),
	'1:2 2:1 3:2 4:1 5:2', 'exactly as often as that, with the same row audit id');

# --- killed while the item that was named is at work
value(q{BEGIN; LOCK TABLE public.bad IN ACCESS EXCLUSIVE MODE; PREPARE TRANSACTION 'gate'});
value("SELECT weir.repair($run, tasks => '{load[4]}')");
wait_until($node, "the item waits", "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'public.bad'::regclass AND NOT granted)");
my $pid = value("SELECT pid FROM pg_locks WHERE relation = 'public.bad'::regclass AND NOT granted");
my $position = -s $node->logfile;
kill 'KILL', $pid;
wait_for_restart($node, $position);
value(q{ROLLBACK PREPARED 'gate'});
is(wait_for_run($node, $run), 'succeeded', 'after kill -9');
is(tasks($run), 'load=succeeded/6 after=succeeded/2 [1]=succeeded/2 [2]=succeeded/2 [3]=succeeded/2 [4]=succeeded/4 [5]=succeeded/2', 'that item alone went again');
is(value("SELECT count(*) FROM public.done WHERE run_id = $run AND n = 4"), 2, 'once');

# --- a mark that was never used does not outlive its repair
value(q[SELECT weir.create_pipeline('below', '{"tasks": [
	{"name": "first", "kind": "sql", "spec": {"sql": "SELECT public.work({{run.id}}, 9, 0)"}},
	{"name": "load", "kind": "for_each", "depends_on": ["first"], "spec": {"items": [1, 2],
	 "task": {"kind": "sql", "spec": {"sql": "SELECT public.work({{run.id}}, {{item}}, {{row_audit_id}})"}}}}]}')]);
value('INSERT INTO public.bad VALUES (1), (2)');
$run = weir_trigger($node, 'below');
is(wait_for_run($node, $run), 'failed', 'both items fail');
value('INSERT INTO public.bad VALUES (9)');
value("SELECT weir.repair($run, tasks => '{first, load[1]}')");
is(wait_for_run($node, $run), 'failed', 'what is upstream fails');
is(tasks($run), 'first=failed/2 load=blocked/1 [1]=failed/1 [2]=failed/1', 'so the item was not reached');
value('DELETE FROM public.bad');
value("SELECT weir.repair($run)");
is(wait_for_run($node, $run), 'succeeded', 'a repair of everything');
is(tasks($run), 'first=succeeded/3 load=succeeded/2 [1]=succeeded/2 [2]=succeeded/2', 'is one of everything');
is(value('SELECT count(*) FROM weir.task_run WHERE reference IS NOT NULL'), 0, 'no mark is left');

# --- what there is not
refused("SELECT weir.repair($run, tasks => '{load[3]}')", qr/run $run has no item "load\[3\]"/, 'an item that is not there');
refused("SELECT weir.repair($run, tasks => '{first[1]}')", qr/run $run has no item "first\[1\]"/, 'an item of a task that has none');
refused("SELECT weir.repair($run, tasks => '{load[1]x}')", qr/there is no task "load\[1\]x"/, 'no item');
refused("SELECT weir.rerun_from($run, 'load[]')", qr/there is no task "load\[\]"/, 'no number');
refused("SELECT weir.repair($run, tasks => '{load[99999999999999999999]}')", qr/has no item/, 'a number too long');
refused("SELECT weir.trigger('each', tasks => '{load[1]}')", qr/there is no task "load\[1\]"/, 'a run that is new has no items to name');

$node->stop;
done_testing();
