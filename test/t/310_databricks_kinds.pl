# The Databricks kinds beside databricks_job: each succeeds with its output and
# its counts, fails with the engine's own text, is cancelled there, and goes
# through refusals, broken answers and restarts without starting anything twice.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('kinds');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

value(qq{
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}', '{"settle_seconds": 2}')});

my $number = 0;

sub task { my ($kind, $spec, %more) = @_; return { name => 'it', kind => "databricks_$kind", connection => 'dbx', spec => $spec, %more } }

# A new pipeline, and a run of it.
sub start
{
	my ($tasks, %params) = @_;
	my $name = 'p' . ++$number;

	$tasks = [$tasks] if ref $tasks eq 'HASH';
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => $tasks,
		parameters => { map { $_ => { type => 'text', default => $params{$_} } } keys %params } })) . ')');
	return weir_trigger($node, $name);
}

sub run { my $run = start(@_); wait_for_run($node, $run); return $run }
sub of_task { my ($run, $what, $name) = @_; $name //= 'it'; return value("SELECT $what FROM weir.task_run WHERE run_id = $run AND task_name = '$name' AND item_no = 0") }
sub output { my ($run, $path) = @_; return of_task($run, "output #>> '{$path}'") }
sub error { return value("SELECT concat_ws(' | ', code, failure_type, message) FROM weir.errors WHERE run_id = $_[0] ORDER BY occurred_at DESC LIMIT 1") }
sub detail { return value("SELECT detail FROM weir.errors WHERE run_id = $_[0] ORDER BY occurred_at DESC LIMIT 1") }
sub status { return value("SELECT status FROM weir.run WHERE run_id = $_[0]") }

my %good = (
	notebook => { notebook_path => '/Shared/echo', base_parameters => { rows_read => '5', n => 1 } },
	python => { python_file => '/Shared/echo.py', parameters => [ 'a', 2 ], environment => { environment_version => '2' } },
	jar => { main_class_name => 'com.example.echo', parameters => ['a'], libraries => [ { jar => '/x.jar' } ], existing_cluster_id => 'c1' },
	sql_file => { path => '/Shared/echo.sql', warehouse_id => 'wh1' },
	sql => { statement => 'SELECT :n * 2 AS n, :t AS t', warehouse_id => 'wh1', parameters => { n => 21, t => '{{params.who}}' } },
	pipeline => { pipeline_id => 'flights' },
	serving => { endpoint => 'adder', dataframe_records => [ { a => 1, b => 2 }, { a => 3, b => 4 } ] });
my %operation = (notebook => 'submit', python => 'submit', jar => 'submit', sql_file => 'submit', sql => 'execute',
	pipeline => 'pipeline-start', serving => 'invoke');
my @kinds = sort keys %good;

# Did this kind start once since then?
sub started { my ($kind, $since) = @_; return $cloud->started("databricks.$operation{$kind}", since => $since) }
sub mark { my $ledger = $cloud->ledger(limit => 1); return @$ledger ? $ledger->[-1]{seq} : 0 }

# --- succeed: output, counts, link
my %run = map { $_ => run(task($_, $good{$_}), who => "o'neill; --") } @kinds;
is(join(' ', map { "$_=" . status($run{$_}) } @kinds), join(' ', map { "$_=succeeded" } @kinds), 'every kind succeeds')
  or diag(join("\n", map { error($run{$_}) } @kinds));
is(output($run{notebook}, 'exit_value,n'), '1', 'notebook: the exit value is JSON');
is(of_task($run{notebook}, 'rows_read'), '5', 'notebook: a count in it');
like(of_task($run{notebook}, 'external_url'), qr{^\Q$address\E/dbx/\?o=\d+#job/\d+/run/\d+$}, 'notebook: link');
like(output($run{python}, 'logs'), qr/^begins\n.*"arguments":\["a","2"\]/s, 'python: logs, with its arguments');
like(output($run{jar}, 'logs'), qr/"arguments":\["a"\]/, 'jar: logs');
like(output($run{sql_file}, 'output_link'), qr{/sql/queries/\d+}, 'sql_file: link to its output');
is(output($run{sql}, 'rows'), '[{"n": 42, "t": "o\'neill; --"}]', 'sql: typed rows, parameters are no SQL');
is(of_task($run{sql}, "rows_read || ' ' || coalesce(rows_written::text, 'null')"), '1 null', 'sql: counts');
like(of_task($run{sql}, 'external_url'), qr{/sql/history\?queryId=}, 'sql: link');
is(output($run{pipeline}, 'rows_written'), '5792', 'pipeline: rows of all flows');
is(output($run{pipeline}, 'expectations'), '{"failed": 6, "passed": 4328}', 'pipeline: expectations');
is(value("SELECT string_agg(concat_ws(' ', activity, activity_type, status, rows_copied, rows_skipped), ', ' ORDER BY activity) FROM weir.activity WHERE run_id = $run{pipeline}"),
	'it/main.lake.airports flow succeeded 1458 0, it/main.lake.flights flow succeeded 4334 6', 'pipeline: a row of activities for each flow');
is(value("SELECT output #>> '{expectations,has_tail_number,failed}' FROM weir.activity WHERE run_id = $run{pipeline} AND activity LIKE '%flights'"), '6', 'pipeline: metrics of an expectation');
is(value("SELECT count_type || ' ' || row_count FROM weir.row_count WHERE run_id = $run{pipeline}"), 'Insert 5792', 'pipeline: row count');
like(of_task($run{pipeline}, 'external_url'), qr{/#joblist/pipelines/flights/updates/[0-9a-f-]{36}$}, 'pipeline: link');
is(output($run{serving}, 'predictions'), '[3, 7]', 'serving: predictions');
like(of_task($run{serving}, 'external_url'), qr{/ml/endpoints/adder$}, 'serving: link');

# --- what else they take and give
$cloud->call('POST', 'notebooks', { path => '/Shared/load', action => 'echo', result => { rows_read => 12, rows_written => 11, next => { day => '2026-01-02' } } });
my $after = run([ task('notebook', { notebook_path => '/Shared/load' }),
	{ name => 'then', kind => 'sql', depends_on => ['it'], spec => { sql => 'SELECT {{tasks.it.output.exit_value.next.day}} AS day' } } ]);
is(of_task($after, "rows_read || ' ' || rows_written"), '12 11', 'notebook: counts it exits with');
is(of_task($after, "output #>> '{rows,0,day}'", 'then'), '2026-01-02', 'notebook: a later task uses its exit value');
my $text = run(task('notebook', { notebook_path => '/Shared/text' }));
is(output($text, 'exit_value'), 'all is well', 'notebook: text that is no JSON');
my $wheel = run(task('python', { package_name => 'p', entry_point => 'echo', named_parameters => { a => 1 }, environment => { environment_version => '2', dependencies => ['p.whl'] } }));
like(output($wheel, 'logs'), qr/"a":"1"/, 'python: a wheel');
my $git = run(task('notebook', { notebook_path => 'etl/echo', git_source => { git_url => 'https://example.com/a.git', git_provider => 'gitHub', git_branch => 'main' } }));
is(status($git), 'succeeded', 'notebook: from a repository');

# Job clusters: what a spec says of one arrives as it is, and libraries beside it.
my $cluster = { spark_version => '15.4.x-scala2.12', node_type_id => 'Standard_D4ds_v5', autoscale => { min_workers => 1, max_workers => 4 },
	spark_conf => { 'spark.speculation' => 'true' }, custom_tags => { load => 'of {{row_audit_id}}' } };
my @libraries = ({ whl => '/Volumes/main/libs/etl.whl' }, { pypi => { package => 'pandas==2.2.2' } });
my %on_cluster = (
	notebook => [ 'notebook', { notebook_path => '/Shared/echo' } ],
	python => [ 'python', { python_file => '/Shared/echo.py', parameters => ['a'], libraries => [@libraries] } ],
	wheel => [ 'python', { package_name => 'p', entry_point => 'echo', libraries => [ $libraries[0] ] } ],
	jar => [ 'jar', { main_class_name => 'com.example.echo', libraries => [ { jar => '/x.jar' } ] } ]);
foreach my $name (sort keys %on_cluster)
{
	my ($kind, $spec) = @{ $on_cluster{$name} };
	my $before = mark();
	my $run = run(task($kind, { %$spec, new_cluster => $cluster }));
	is(status($run), 'succeeded', "$name: on a job cluster") or diag(error($run));
	is(started($kind, $before), 1, "$name: started once");
	my $id = of_task($run, 'external_run_id');
	my ($there) = grep { $_->{run_id} eq $id } @{ $cloud->runs->{databricks} };
	my $submitted = $there->{tasks}[0]{submitted};
	is($json->encode($submitted->{new_cluster}), $json->encode({ %$cluster, custom_tags => { load => "of $run" } }), "$name: the cluster is as the spec has it");
	is($json->encode($submitted->{libraries} // []), $json->encode($spec->{libraries} // []), "$name: so are its libraries");
	is(join(' ', grep { exists $submitted->{$_} } 'existing_cluster_id', 'environment_key'), '', "$name: and it runs nowhere else");
}

$cloud->config(chunk_rows => 2);
my $series = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 7) SELECT i FROM n';
my $chunks = run(task('sql', { statement => $series, warehouse_id => 'wh1' }));
is(of_task($chunks, "(SELECT string_agg(r ->> 'i', '' ORDER BY i) FROM jsonb_array_elements(output -> 'rows') WITH ORDINALITY e (r, i))"), '1234567', 'sql: rows of several chunks');
cmp_ok($cloud->requests('databricks.chunk'), '>=', 3, 'sql: chunk after chunk');
my $few = run(task('sql', { statement => $series, warehouse_id => 'wh1', max_rows => 3 }));
is(of_task($few, "jsonb_array_length(output -> 'rows') || ' ' || (output ->> 'truncated')"), '3 true', 'sql: no more rows than asked for');
$cloud->config(chunk_rows => 100);
is(status(run(task('sql', { statement => 'CREATE TABLE t (a)', warehouse_id => 'wh1', wait_seconds => 50 }))), 'succeeded', 'sql: waited for');
my $insert = run(task('sql', { statement => 'INSERT INTO t VALUES (:a), (:b)', warehouse_id => 'wh1', parameters => { a => { value => '7', type => 'BIGINT' }, b => undef } }));
is(of_task($insert, 'rows_written'), 2, 'sql: rows written');
is(output(run(task('sql', { statement => 'SELECT sum(a) AS s, count(*) AS n FROM t', warehouse_id => 'wh2' })), 'rows'), '[{"n": 2, "s": 7}]', 'sql: a number and a null arrived');
my $part = run(task('pipeline', { pipeline_id => 'flights', refresh_selection => ['airports'] }));
is(output($part, 'flows'), '{"main.lake.flights": "EXCLUDED", "main.lake.airports": "COMPLETED"}', 'pipeline: a selection');
my $full = run(task('pipeline', { pipeline_id => 'flights', full_refresh => JSON::PP::true }));
my $valid = run(task('pipeline', { pipeline_id => 'flights', validate_only => JSON::PP::true }));
my @updates = @{ $cloud->call('GET', 'declarative')->{flights} }[ -2, -1 ];
is(join(' ', status($full), status($valid), map { $_->{full_refresh} . $_->{validate_only} } @updates), 'succeeded succeeded 10 01', 'pipeline: full refresh, validation');
my $chat = run(task('serving', { endpoint => 'chat', messages => [ { role => 'user', content => 'hello {{params.who}}' } ], max_tokens => 5 }), who => 'world');
is(output($chat, 'choices,0,message,content') . ' ' . output($chat, 'usage,total_tokens'), 'hello world 4', 'serving: a chat');

# --- fail, with the engine's text
my %bad = (
	notebook => [ { notebook_path => '/Shared/fail' }, qr/^RUN_EXECUTION_ERROR \| user \| failed on demand|^RUN_EXECUTION_ERROR \| user \| ValueError/ ],
	python => [ { python_file => '/Shared/fail.py', existing_cluster_id => 'c1' }, qr/RUN_EXECUTION_ERROR \| user \| ValueError: failed on demand/ ],
	jar => [ { main_class_name => 'com.example.fail', libraries => [ { jar => '/x.jar' } ], existing_cluster_id => 'c1' }, qr/ValueError: failed on demand/ ],
	sql_file => [ { path => '/Shared/fail.sql', warehouse_id => 'wh1' }, qr/ValueError: failed on demand/ ],
	sql => [ { statement => 'SELECT * FROM nowhere', warehouse_id => 'wh1' }, qr/^BAD_REQUEST \| user \| \[TABLE_OR_VIEW_NOT_FOUND\] The table or view `nowhere`/ ],
	pipeline => [ { pipeline_id => 'broken' }, qr/^FAILED \| user \| flow main\.lake\.broken: \[TABLE_OR_VIEW_NOT_FOUND\]/ ],
	serving => [ { endpoint => 'broken', inputs => [1] }, qr/^BAD_REQUEST \| user \| HTTP 400: Failed to enforce schema/ ]);
%run = map { $_ => run(task($_, $bad{$_}[0])) } @kinds;
foreach my $kind (@kinds)
{
	is(status($run{$kind}), 'failed', "$kind fails");
	like(error($run{$kind}), $bad{$kind}[1], "$kind: the engine's text");
}
like(detail($run{notebook}), qr/Traceback.*line 7/s, 'notebook: the trace');
is(detail($run{sql}), 'SQLSTATE 42P01.', 'sql: the SQLSTATE');
is(value("SELECT status || ' ' || error_code FROM weir.activity WHERE run_id = $run{pipeline}"), 'failed org.apache.spark.sql.AnalysisException', 'pipeline: the flow that failed');
like(error(run(task('sql', { statement => 'SELECT 1', warehouse_id => 'none' }))), qr/RESOURCE_DOES_NOT_EXIST \| user \| HTTP 404: SQL warehouse none/, 'sql: no warehouse');
like(error(run(task('sql', { statement => 'SELECT :a', warehouse_id => 'wh1' }))), qr/UNBOUND_SQL_PARAMETER/, 'sql: no value for a marker');
like(error(run(task('pipeline', { pipeline_id => 'none' }))), qr/HTTP 404: The specified pipeline none/, 'pipeline: none');

# --- a pipeline that tries again by itself, and one that is busy
my $before = mark();
my $shaky = run(task('pipeline', { pipeline_id => 'shaky' }));
is(status($shaky), 'succeeded', 'pipeline: its own retry is followed');
@updates = @{ $cloud->call('GET', 'declarative')->{shaky} };
is(join(' ', map { "$_->{cause} $_->{state}" } @updates), 'API_CALL FAILED RETRY_ON_FAILURE COMPLETED', 'pipeline: two updates');
is(of_task($shaky, 'external_run_id'), $updates[1]{update_id}, 'pipeline: the one that counts is named');
is(started('pipeline', $before), 1, 'pipeline: started once');
$cloud->add_fault(fault => 'never_ends', pipeline_id => 'flights');
my $busy = start(task('pipeline', { pipeline_id => 'flights' }));
wait_until($node, 'the update runs', "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $busy");
my $refused = run(task('pipeline', { pipeline_id => 'flights', when_active => 'fail' }));
like(error($refused), qr/^update_active \| system \| update .* is active/, 'pipeline: busy');
$before = mark();
my $queued = start(task('pipeline', { pipeline_id => 'flights', refresh_selection => ['airports'] }));
$cloud->wait(operation => 'databricks.pipeline-list', since => $before, count => 2);
is(started('pipeline', $before), 0, 'pipeline: waits while another update is active');
value("SELECT weir.cancel($busy)");
is(wait_for_run($node, $busy), 'cancelled', 'pipeline: stopped');
is(wait_for_run($node, $queued), 'succeeded', 'pipeline: goes on when it is idle');

# --- cancel
my %endless = (%good, notebook => { notebook_path => '/Shared/echo' });
my %stop = (notebook => 'cancel', python => 'cancel', jar => 'cancel', sql_file => 'cancel', sql => 'cancel-statement', pipeline => 'pipeline-stop');
foreach my $kind (grep { $_ ne 'serving' } @kinds)
{
	$cloud->clear_faults;
	$cloud->add_fault(fault => 'never_ends');
	$before = mark();
	my $run = start(task($kind, $endless{$kind}), who => 'x');
	wait_until($node, "$kind runs", "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run");
	value("SELECT weir.cancel($run)");
	is(wait_for_run($node, $run), 'cancelled', "$kind is cancelled");
	is($cloud->requests("databricks.$stop{$kind}", since => $before), 1, "$kind: the engine was told");
	is(started($kind, $before), 1, "$kind: it was started once");
}
$cloud->clear_faults;
$cloud->add_fault(fault => 'delay', operation => 'databricks.invoke', delay_ms => 60000);
$before = mark();
my $model = start(task('serving', $good{serving}));
$cloud->wait(operation => 'databricks.invoke', since => $before);
value("SELECT weir.cancel($model)");
is(wait_for_run($node, $model), 'cancelled', 'serving is given up');
like(of_task($model, 'error_message'), qr/whether the endpoint adder answered the request is not known/, 'serving: what is known is said');
$cloud->clear_faults;

# --- a request lost, refused or broken at the start: once, all the same
my %faults = (
	'429' => { fault => 'status', status => 429, retry_after => 1, times => 2 },
	'500 after the work' => { fault => 'status', status => 500, do_work => JSON::PP::true },
	'a gateway' => { fault => 'html' },
	'reset before' => { fault => 'reset_before' },
	'reset after' => { fault => 'reset_after' },
	'half a body' => { fault => 'half_body' },
	'no JSON' => { fault => 'not_json' });
foreach my $fault (sort keys %faults)
{
	my @some = ('notebook', 'pipeline', 'sql');
	$before = mark();
	foreach my $kind (@some)
	{
		$cloud->add_fault(operation => "databricks.$operation{$kind}", %{ $faults{$fault} });
	}
	my %at = map { $_ => start(task($_, $_ eq 'sql' ? { %{ $good{sql} }, idempotent => JSON::PP::true } : $good{$_}), who => 'x') } @some;
	is(join(' ', map { wait_for_run($node, $at{$_}) } @some), 'succeeded succeeded succeeded', "$fault: all succeed");
	is(join(' ', map { started($_, $before) } @some), '1 1 1', "$fault: each was started once");
	$cloud->clear_faults;
}

# --- polls that fail, a token that is not known any more
$cloud->add_fault(operation => "databricks.$_", fault => 'status', status => 503, times => 2) foreach qw(get statement pipeline-update pipeline-events get-output);
$cloud->add_fault(operation => "databricks.$_", fault => 'half_body') foreach qw(get statement pipeline-update pipeline-events get-output);
$before = mark();
%run = map { $_ => start(task($_, $good{$_}), who => 'x') } qw(notebook pipeline sql);
is(join(' ', map { wait_for_run($node, $run{$_}) } sort keys %run), 'succeeded succeeded succeeded', 'answers that fail are asked for again');
is(output($run{notebook}, 'exit_value,n') . ' ' . output($run{pipeline}, 'rows_written') . ' ' . output($run{sql}, 'rows,0,n'), '1 5792 42', 'nothing of them is missing');
is(join(' ', map { started($_, $before) } sort keys %run), '1 1 1', 'and nothing was started again');
$cloud->clear_faults;

# --- a statement whose answer is lost and that no history shows
$cloud->config(history_delay_ms => 1e9);
foreach my $case ([ JSON::PP::false, 'failed', 1 ], [ JSON::PP::true, 'succeeded', 2 ])
{
	my ($idempotent, $end, $times) = @$case;
	$before = mark();
	$cloud->add_fault(operation => 'databricks.execute', fault => 'reset_after');
	my $run = run(task('sql', { %{ $good{sql} }, idempotent => $idempotent }, retry => { max_attempts => 3, initial_delay => 0.1 }), who => 'x');
	is(status($run), $end, "lost statement, idempotent: $idempotent");
	is(started('sql', $before), $times, 'executed as often as the spec allows');
	like(error($run), qr/^outcome_unknown \| system \| .*query tag weir_token = /, 'what is known is said') unless $idempotent;
}

# ... nobody but somebody who looks: what he names is followed
$before = mark();
$cloud->add_fault(operation => 'databricks.execute', fault => 'reset_after');
my $asked = start(task('sql', $good{sql}, on_uncertain => 'ask'), who => 'x');
wait_until($node, 'somebody is asked', "SELECT kind_state ? 'uncertain' FROM weir.attempt WHERE run_id = $asked");
my ($statement) = map { $_->{statement_id} } @{ $cloud->ledger(operation => 'databricks.execute', since => $before) };
value("SELECT weir.adopt(task_run_id, '$statement') FROM weir.task_run WHERE run_id = $asked");
is(wait_for_run($node, $asked), 'succeeded', 'a statement that somebody names is followed');
is(output($asked, 'rows,0,n') . ' ' . started('sql', $before), '42 1', 'and was executed once');
like(of_task($asked, 'external_url'), qr{queryId=\Q$statement\E$}, 'with its link');
$cloud->config(history_delay_ms => 300);
$cloud->clear_faults;
my $by_hand = run(task('notebook', { notebook_path => '/Shared/fail' }));
my $other = of_task(run(task('notebook', { notebook_path => '/Shared/echo', base_parameters => { n => 9 } })), 'external_run_id');
value("SELECT weir.adopt(task_run_id, '$other') FROM weir.task_run WHERE run_id = $by_hand");
wait_until($node, 'it is repaired', "SELECT status = 'succeeded' FROM weir.run WHERE run_id = $by_hand");
is(output($by_hand, 'exit_value,n'), '9', 'a one-time run that was started by hand is followed');

# --- D: what landed stays, the run that failed is started anew with the same row_audit_id
value('CREATE TABLE landed (id bigint)');
$cloud->add_fault(fault => 'task_fails', message => 'the cluster was lost');
$before = mark();
my $first = start([ { name => 'land', kind => 'sql', phase => 'land', spec => { sql => 'INSERT INTO landed VALUES ({{row_audit_id}})' } },
	task('notebook', { notebook_path => '/Shared/echo', base_parameters => { row_audit_id => '{{row_audit_id}}' } }, depends_on => ['land']) ]);
is(wait_for_run($node, $first), 'failed', 'D: the first run fails');
my $second = weir_trigger($node, "p$number");
is(wait_for_run($node, $second), 'succeeded', 'D: the second succeeds');
is(value("SELECT start_status FROM weir.run WHERE run_id = $second"), 'D', 'D: it resumed');
is(output($second, 'exit_value,row_audit_id'), $first, 'D: the origin is carried on');
is(value('SELECT count(*) FROM landed') . ' ' . started('notebook', $before), '1 2', 'D: landed once, run twice');

$node->stop;
done_testing();
