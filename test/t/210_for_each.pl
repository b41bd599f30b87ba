# for_each: one task for every item of a list.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use WeirTest;

my $node = weir_node('for_each', conf => "weir.max_sql_workers = 6\n");
my $cloud = weir_cloud($node);
weir_story($node, $cloud);

sub value { return $node->safe_psql('postgres', $_[0]); }
sub error_of { my ($status, $stdout, $stderr) = $node->psql('postgres', $_[0]); return $status == 0 ? '' : $stderr; }

value(q{
	CREATE TABLE public.done (run_id bigint, item_no integer, value text, task text);
	CREATE TABLE public.object (name text PRIMARY KEY, divisor integer NOT NULL DEFAULT 1)});

sub for_each
{
	my ($name, $items, $task, %more) = @_;
	my %spec = (items => $items, task => $task);
	$spec{concurrency} = delete $more{concurrency} if $more{concurrency};
	return { name => $name, kind => 'for_each', spec => \%spec, %more };
}

sub sql
{
	my ($sql, %more) = @_;
	return { kind => 'sql', spec => { sql => $sql }, %more };
}

sub define
{
	my ($name, $tasks, %more) = @_;
	my $role = delete $more{role};
	my $json = encode_json({ tasks => $tasks, %more });
	$node->safe_psql('postgres', (defined $role ? "SET ROLE $role; " : '') . "SELECT weir.create_pipeline('$name', \$json\$$json\$json\$::jsonb)");
	return;
}

my $note = sql('INSERT INTO public.done VALUES ({{run.id}}, {{item_no}}, {{item.name}}, {{task.name}})');

# "1 a t[1]; 2 b t[2]": what the items did.
sub noted
{
	my ($run) = @_;
	return value(qq{SELECT string_agg(concat_ws(' ', item_no, value, task), '; ' ORDER BY item_no) FROM public.done WHERE run_id = $run});
}

# "succeeded: 2; waiting: 1" of the items of a run
sub items
{
	my ($run) = @_;
	return value(qq{
		SELECT string_agg(status || ': ' || n, '; ' ORDER BY status) FROM
		(SELECT status, count(*) AS n FROM weir.task_run WHERE run_id = $run AND item_no > 0 GROUP BY status) AS x});
}

sub task_value
{
	my ($run, $task, $expression) = @_;
	return value("SELECT $expression FROM weir.task_run WHERE run_id = $run AND task_name = '$task'");
}

sub runs
{
	my ($pipeline, $status, $what, %options) = @_;
	my $run = weir_trigger($node, $pipeline, %options);
	is(wait_for_run($node, $run), $status, $what);
	return $run;
}

# --- lists
define('literal', [ for_each('t', [ { name => 'a' }, { name => "b'; DROP TABLE public.done; --" } ], $note),
		{ name => 'after', kind => 'sql', depends_on => ['t'], spec => { sql => 'SELECT {{tasks.t.output.items}} AS n, {{tasks.t.output.outputs[0].rowsWritten}} AS w' } } ]);
my $run = runs('literal', 'succeeded', 'a literal list');
is(noted($run), "1 a t[1]; 2 b'; DROP TABLE public.done; -- t[2]", 'items are bound, not pasted');
is(task_value($run, 'after', "output->'rows'->0"), '{"n": 2, "w": 1}', 'its output');
is(value("SELECT string_agg(concat_ws(' ', task_name, item_no, item->>'name', parent_task_run_id = (SELECT task_run_id FROM weir.task_run WHERE run_id = $run AND task_name = 't')), '; ' ORDER BY item_no) FROM weir.task_runs WHERE run_id = $run AND item_no > 0"),
	"t[1] 1 a t; t[2] 2 b'; DROP TABLE public.done; -- t", 'weir.task_runs shows items');
is(value("SELECT string_agg(component || ' ' || row_count, ', ' ORDER BY component) FROM weir.row_count WHERE run_id = $run AND count_type = 'Insert'"), 't[1] 1, t[2] 1', 'row counts are per item');

define('param', [ for_each('t', '{{params.objects}}', sql('INSERT INTO public.done VALUES ({{run.id}}, {{item_no}}, {{item}}::text)')) ],
	parameters => { objects => { type => 'json', default => [] } });
$run = runs('param', 'succeeded', 'an empty list');
is(task_value($run, 't', "output::text || attempt_no"), '{"items": 0, "outputs": [], "succeeded": 0}1', 'succeeds at once');
$run = runs('param', 'succeeded', 'a parameter', params => '{"objects": [7, "x", null, true]}');
is(value("SELECT string_agg(concat(item_no, coalesce(value, '-')), ' ' ORDER BY item_no) FROM public.done WHERE run_id = $run"), '17 2x 3- 4true', 'values keep their types');
$run = runs('param', 'failed', 'no list', params => '{"objects": {"a": 1}}');
like(task_value($run, 't', 'error_message'), qr/must be an array/, 'says what is wrong');
is(items($run), '', 'and has no items');

define('listed', [ { name => 'list', kind => 'sql', spec => { sql => 'SELECT name FROM public.object ORDER BY name LIMIT {{params.n}}' } },
		for_each('t', '{{tasks.list.output.rows}}', $note, depends_on => ['list']) ],
	parameters => { n => { type => 'bigint', default => 3 } });
value(q{INSERT INTO public.object SELECT format('o%s', lpad(n::text, 4, '0')) FROM generate_series(1, 200) n});
$run = runs('listed', 'succeeded', 'rows of a task');
is(noted($run), '1 o0001 t[1]; 2 o0002 t[2]; 3 o0003 t[3]', 'are items');
$run = runs('listed', 'failed', 'more rows than an output keeps', params => '{"n": 150}');
like(task_value($run, 't', 'error_message'), qr/only the beginning of a longer list/, 'are not taken for all of them');

# --- listed by a statement, as the owner
value(q{CREATE ROLE lister LOGIN; GRANT weir_admin TO lister; GRANT USAGE ON SCHEMA public TO lister;
	GRANT SELECT, UPDATE ON public.object TO lister; GRANT INSERT ON public.done TO lister});
define('by_sql', [ for_each('t', { sql => 'SELECT name, divisor, current_user AS role FROM public.object WHERE name <= {{params.last}} ORDER BY name' },
			sql(q{INSERT INTO public.done SELECT {{run.id}}, {{item_no}}, {{item.role}} || ' ' || 1 / divisor FROM public.object WHERE name = {{item.name}}}), concurrency => 3),
		{ name => 'after', kind => 'noop', depends_on => ['t'] } ],
	parameters => { last => { type => 'text', default => 'o0010' } }, role => 'lister');
$run = runs('by_sql', 'succeeded', 'items of a statement');
is(items($run), 'succeeded: 10', 'all of them');
is(value("SELECT count(*) || ' ' || min(value) || ' ' || max(value) FROM public.done WHERE run_id = $run"), '10 lister 1 lister 1', 'listed and run as the owner');

# --- failures; repair goes down to one item
value(q{UPDATE public.object SET divisor = 0 WHERE name IN ('o0002', 'o0005', 'o0010')});
$run = runs('by_sql', 'failed', 'three items fail');
is(items($run), 'failed: 3; succeeded: 7', 'the others go on');
is(task_value($run, 't', 'error_message'), '3 of 10 items failed; item 2: division by zero', 'the task tells how many');
is(task_value($run, 't', "output - 'outputs'"), '{"items": 10, "failed": 3, "succeeded": 7}', 'so does its output');
is(value("SELECT error_message FROM weir.run WHERE run_id = $run"), 't: 3 of 10 items failed; item 2: division by zero', 'and the run');
is(task_value($run, 'after', 'status'), 'blocked', 'what depends on it is blocked');
is(value("SELECT string_agg(activity, ' ' ORDER BY length(activity), activity) FROM weir.error WHERE run_id = $run AND code = '22012'"), 't[2] t[5] t[10]', 'errors name the item');
my $ids = value("SELECT string_agg(task_run_id::text, ' ' ORDER BY item_no) FROM weir.task_run WHERE run_id = $run AND item_no > 0");
value(q{UPDATE public.object SET divisor = 1 WHERE name <> 'o0010'; INSERT INTO public.object VALUES ('o0000')});
value("SELECT weir.repair($run)");
wait_until($node, 'repaired once', "SELECT repair_no = 1 AND status = 'failed' FROM weir.run WHERE run_id = $run");
is(task_value($run, 't', 'error_message'), '1 of 10 items failed; item 10: division by zero', 'repair mends two of three');
value(q{UPDATE public.object SET divisor = 1});
value("SELECT weir.repair($run)");
is(wait_for_run($node, $run, 'succeeded'), 'succeeded', 'and the third');
is(value("SELECT string_agg(task_run_id::text, ' ' ORDER BY item_no) FROM weir.task_run WHERE run_id = $run AND item_no > 0"), $ids, 'the list was not expanded again');
is(value("SELECT string_agg(n::text, ' ' ORDER BY item_no) FROM (SELECT item_no, count(*) AS n FROM weir.attempt JOIN weir.task_run USING (task_run_id) WHERE task_run.run_id = $run AND item_no > 0 GROUP BY item_no) x"),
	'1 2 1 1 2 1 1 1 1 3', 'only items that did not succeed ran again');
is(task_value($run, 'after', 'status'), 'succeeded', 'what depends on it ran');
is(value("SELECT count(*) || ' ' || count(DISTINCT item_no) FROM public.done WHERE run_id = $run"), '10 10', 'every item took effect once');

# what is asked for by name runs again, all of it
value("SELECT weir.rerun_from($run, 't')");
wait_until($node, 'repeated', "SELECT repair_no = 3 AND status = 'succeeded' FROM weir.run WHERE run_id = $run");
is(value("SELECT count(*) FROM public.done WHERE run_id = $run"), '20', 'a for_each that is named repeats all items');
is(value("SELECT string_agg(task_run_id::text, ' ' ORDER BY item_no) FROM weir.task_run WHERE run_id = $run AND item_no > 0"), $ids, 'of the same list');

# a failure that a handler deals with
define('handled', [ for_each('t', [ 0, 1 ], sql('SELECT 1 / {{item}}')), { name => 'alert', kind => 'noop', depends_on => [ { task => 't', condition => 'failed' } ] } ]);
runs('handled', 'succeeded', 'failed items with a handler of the task');

# retries are the item's own
value('CREATE SEQUENCE public.tries');
define('retried', [ for_each('t', [ 1, 2 ], sql(q{SELECT 1 / (nextval('public.tries') - {{item}})}, retry => { max_attempts => 3, initial_delay => 0, jitter => 0 }), concurrency => 1) ]);
$run = runs('retried', 'succeeded', 'retries of items');
is(value("SELECT string_agg(attempt_no::text, ' ' ORDER BY task_name) FROM weir.task_run WHERE run_id = $run"), '1 2 1', 'count for the item alone');

# --- too many
define('too_many', [ for_each('t', { sql => 'WITH mark AS (INSERT INTO public.done VALUES ({{run.id}}, 0)) SELECT n FROM generate_series(1, {{params.n}}) n' }, { kind => 'noop' }) ],
	parameters => { n => { type => 'bigint', default => 100001 } });
$run = runs('too_many', 'failed', 'more items than there may be');
like(task_value($run, 't', 'error_message'), qr/more than 100000 items/, 'is an error');
is(items($run) . value("SELECT count(*) FROM public.done WHERE run_id = $run"), '0', 'nothing was expanded, and what the statement did is undone');
# A million and one, from wherever a list may come.
$run = weir_trigger($node, 'too_many', params => '{"n": 1000001}');
is(wait_for_run($node, $run), 'failed', 'a million rows');
like(task_value($run, 't', 'error_message'), qr/more than 100000 items, the most a for_each takes/, 'are as many too many');
define('given', [ for_each('t', '{{params.list}}', { kind => 'noop' }) ], parameters => { list => { type => 'json', default => [] } });
sub numbers { return "(SELECT jsonb_agg($_[1]) FROM generate_series(1, $_[0]) n)" }
sub with_list { return "SELECT weir.trigger('given', jsonb_build_object('list', $_[0]))" }
sub written
{
	return "SELECT weir.create_pipeline('written', jsonb_build_object('tasks', jsonb_build_array(jsonb_build_object("
	  . "'name', 't', 'kind', 'for_each', 'spec', jsonb_build_object('items', $_[0], 'task', '{\"kind\": \"noop\"}'::jsonb)))))";
}
my $before = value('SELECT (SELECT count(*) FROM weir.run) || \' \' || (SELECT count(*) FROM weir.pipeline)');
like(error_of(with_list(numbers(1000001, 'n'))), qr/parameters cannot be read: text of \d+ bytes is longer than the limit of 1048576 bytes.*HINT: .*"sql"/s, 'as a parameter they are too long');
like(error_of(written(numbers(1000001, 'n'))), qr/argument "definition" is longer than 1048576 bytes/, 'and in a definition');
like(error_of(written(numbers(300000, 0))), qr/task "t": the list has 300000 items, and a for_each takes at most 100000.*HINT: /s, 'what is not too long there, is too many');
is(value('SELECT (SELECT count(*) FROM weir.run) || \' \' || (SELECT count(*) FROM weir.pipeline)'), $before, 'nothing is left of it');
foreach my $list (numbers(100001, q{'abcde'::text}), numbers(300000, 0))
{
	$run = value(with_list($list));
	is(wait_for_run($node, $run), 'failed', 'a parameter that fits fails the run');
	like(task_value($run, 't', 'error_message'), qr/the list has (100001|300000) items, and a for_each takes at most 100000; let an item/, 'for it has too many items');
	is(items($run), '', 'and nothing is expanded');
}
define('no_rows', [ for_each('t', { sql => 'DELETE FROM public.done WHERE false' }, { kind => 'noop' }) ]);
$run = runs('no_rows', 'failed', 'a statement that lists nothing');
like(task_value($run, 't', 'error_message'), qr/lists no items/, 'is an error');

# --- concurrency, progress, cancel
define('gated', [ for_each('t', { sql => 'SELECT n FROM generate_series(1, 200) n' }, sql('SELECT pg_advisory_xact_lock_shared(210)'), concurrency => 4),
		for_each('h', [ 1 .. 30 ], { kind => 'noop' }, depends_on => ['t'], run_if => 'all_done', concurrency => 2) ]);
{
	my $gate = $node->background_psql('postgres');
	$gate->query_safe('SELECT pg_advisory_lock(210)');
	$run = weir_trigger($node, 'gated');
	wait_until($node, 'four run', "SELECT count(*) = 4 FROM weir.task_run WHERE run_id = $run AND item_no > 0 AND status = 'running'");
	is(items($run), 'running: 4; waiting: 196', 'concurrency of the items');
	is(value("SELECT string_agg(task || ' ' || waiting_for || ' ' || detail, E'\\n') FROM weir.why($run) WHERE task = 't' OR task LIKE 't[%'"),
		't items 0 of 200 items have ended; 4 running', 'weir.why: one row for all items');
	value("SELECT weir.cancel($run)");
	is(wait_for_run($node, $run), 'cancelled', 'cancel reaches items that run');
	is(items($run), 'cancelled: 200', 'and those that wait');
	is(task_value($run, 't', 'status'), 'cancelled', 'and the task');
	$gate->query_safe('SELECT pg_advisory_unlock(210)');
	value("SELECT weir.repair($run)");
	is(wait_for_run($node, $run, 'succeeded'), 'succeeded', 'a cancelled run is repaired');
	is(items($run), 'succeeded: 230', 'with all its items');
	$gate->quit;
}
define('steady', [ for_each('t', [ 1 .. 60 ], sql(q{INSERT INTO public.done SELECT {{run.id}}, {{item_no}}, count(*)::text
				FROM weir.task_run WHERE run_id = {{run.id}} AND item_no > 0 AND status IN ('ready', 'running')}), concurrency => 3) ]);
$run = runs('steady', 'succeeded', 'a longer list');
is(value("SELECT count(*) || ' ' || max(value::integer) FROM public.done WHERE run_id = $run"), '60 3', 'never more at a time than its concurrency');
define('in_time', [ for_each('t', [ 1 .. 20 ], sql('SELECT pg_advisory_xact_lock_shared(210)'), concurrency => 2) ], timeout => '500 milliseconds');
{
	my $gate = $node->background_psql('postgres');
	$gate->query_safe('SELECT pg_advisory_lock(210)');
	$run = runs('in_time', 'timed_out', 'the run timeout reaches items');
	is(items($run), 'cancelled: 18; timed_out: 2', 'its items');
	$gate->quit;
}

# --- fail_fast
define('fail_fast', [ for_each('t', [ 1, 0, 1, 1, 1 ], sql('SELECT 1 / {{item}}'), concurrency => 1), { name => 'after', kind => 'noop', depends_on => ['t'] } ], on_failure => 'fail_fast');
$run = runs('fail_fast', 'failed', 'fail_fast');
is(items($run), 'blocked: 3; failed: 1; succeeded: 1', 'no further item starts');
is(task_value($run, 't', 'error_message'), '1 of 5 items failed; 3 of 5 items were not started; item 2: division by zero', 'and the task says so');

define('handler', [ { name => 'bad', kind => 'sql', spec => { sql => 'SELECT 1 / 0' } },
		for_each('t', [ 1, 0, 1 ], sql('SELECT 1 / {{item}}'), concurrency => 1, depends_on => [ { task => 'bad', condition => 'failed' } ]) ], on_failure => 'fail_fast');
$run = runs('handler', 'failed', 'a list that is there for failures');
is(items($run), 'failed: 1; succeeded: 2', 'is not stopped by one, nor by those of its items');
define('mended', [ for_each('t', [ 1, 2 ], sql('SELECT {{item}}')), { name => 'bad', kind => 'sql', spec => { sql => 'SELECT 1 / 0' }, depends_on => ['t'] } ],
	on_failure => 'fail_fast');
$run = runs('mended', 'failed', 'a run fails after its list');
value("SELECT weir.repair($run, tasks => '{t}')");
wait_until($node, 'it ended again', "SELECT repair_no = 1 AND status = 'failed' FROM weir.run WHERE run_id = $run");
is(value("SELECT string_agg(status || ' ' || attempt_no, ', ' ORDER BY item_no) FROM weir.task_run WHERE run_id = $run AND task_name LIKE 't%'"),
	'succeeded 2, succeeded 2, succeeded 2', 'a failure of before the repair stops no item');

# --- a failure in the same moment as a list: the list is not taken for one whose items have ended
define('at_once', [ for_each('bad', '{{params.no_list}}', { kind => 'noop' }), for_each('t', [ 1, 2, 3 ], sql('SELECT {{item}}'), concurrency => 1),
		for_each('late_bad', '{{params.no_list}}', { kind => 'noop' }) ],
	parameters => { no_list => { type => 'json', default => 7 } });
$run = runs('at_once', 'failed', 'a list that is none beside one');
is(items($run), 'succeeded: 3', 'its items run');
is(task_value($run, 't', "status || ' ' || (output->>'items')"), 'succeeded 3', 'and are what it ends with');

# --- items of an engine: a token each; repair resumes what the item started
define('engine', [ for_each('t', [ 0, 0.1, 0.2 ], { kind => 'databricks_job', connection => 'dbx_dev',
				spec => { job_id => 102, job_parameters => { seconds => '{{item}}', item => '{{item_no}}' } } }, phase => 'land', concurrency => 2) ]);
$cloud->add_fault(fault => 'task_fails', job_id => 102, task_key => 'wait', message => 'broken', times => 1);
$run = runs('engine', 'failed', 'items of an engine');
is($cloud->started('databricks.run-now'), 3, 'each was started once');
is(items($run), 'failed: 1; succeeded: 2', 'one failed');
is(value("SELECT count(DISTINCT token) || ' ' || count(DISTINCT a.external_run_id) FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE t.run_id = $run AND item_no > 0"), '3 3', 'with a token of its own');
value("SELECT weir.repair($run)");
is(wait_for_run($node, $run, 'succeeded'), 'succeeded', 'repaired');
is(join(' ', map { $cloud->started($_) } qw(databricks.run-now databricks.repair)), '3 1', 'the run of that one item was repaired');
is(value("SELECT count(*) FROM weir.activity WHERE run_id = $run AND activity LIKE 't[_]/%'"), '3', 'activities name the item');

# --- D: items of the new run resume what failed in the one before
define('resumed', [ { name => 'land', kind => 'noop', phase => 'land' },
		for_each('t', [ 0, 0.1, 0.2 ], { kind => 'databricks_job', connection => 'dbx_dev',
				spec => { job_id => 102, job_parameters => { seconds => '{{item}}', item => '{{item_no}}' } } }, depends_on => ['land']) ]);
$cloud->reset;
$cloud->add_fault(fault => 'task_fails', job_id => 102, task_key => 'wait', message => 'broken', times => 1);
runs('resumed', 'failed', 'an item fails after landing');
$run = runs('resumed', 'succeeded', 'the next start');
is(value("SELECT start_status FROM weir.run WHERE run_id = $run"), 'D', 'resumes after landing');
is(join(' ', map { $cloud->started($_) } qw(databricks.run-now databricks.repair)), '5 1', 'down to the item that failed');

# --- a killed conductor in the middle of 200 items
define('killed', [ for_each('t', { sql => 'SELECT name FROM public.object ORDER BY name LIMIT 200' }, $note, concurrency => 4) ]);
{
	$run = weir_trigger($node, 'killed');
	foreach my $n (20, 90)
	{
		wait_until($node, "$n ended", "SELECT count(*) > $n FROM weir.task_run WHERE run_id = $run AND item_no > 0 AND status = 'succeeded'");
		kill9_backend($node, 'weir conductor');
	}
	is(wait_for_run($node, $run), 'succeeded', 'a conductor killed twice');
	is(value("SELECT count(*) || ' ' || count(DISTINCT item_no) || ' ' || count(DISTINCT value) FROM public.done WHERE run_id = $run"), '200 200 200', 'nothing lost, nothing twice');
	is(items($run), 'succeeded: 200', 'all items succeeded');
	is(task_value($run, 't', "output->>'succeeded'"), '200', 'and are counted');
}

# --- many
define('many', [ for_each('n', { sql => 'SELECT n FROM generate_series(1, 10000) n' }, { kind => 'noop' }, concurrency => 4),
		for_each('s', { sql => 'SELECT n FROM generate_series(1, 2000) n' }, sql('SELECT {{item.n}}'), depends_on => ['n']) ]);
{
	my $start = time;
	$run = weir_trigger($node, 'many');
	is(wait_for_status($node, $run, 'n', 'succeeded'), 'succeeded', '10,000 noop items');
	diag(sprintf('10,000 noop items: %.1f s', time - $start));
	$start = time;
	is(wait_for_run($node, $run), 'succeeded', '2,000 SQL items');
	diag(sprintf('2,000 SQL items: %.1f s', time - $start));
	is(items($run), 'succeeded: 12000', 'all of them');
}

# --- without a conductor of its own, in a session
$node->append_conf('postgresql.conf', 'weir.enabled = off');
$node->reload;
wait_until($node, 'the conductor is gone', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'weir conductor%'");
$run = weir_trigger($node, 'by_sql');
value('CALL weir.conduct()');
is(value("SELECT status FROM weir.run WHERE run_id = $run"), 'succeeded', 'conducted by a session');
is(items($run), 'succeeded: 11', 'all items');

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;
done_testing();
