# What one engine says is what the next one is told: outputs flow from kind to
# kind, with their types; every engine's page is in the log; and what became of
# a reference is checked like what was written.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('between');
my $cloud = weir_cloud($node);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub id { return sprintf('00000000-0000-4000-8000-%012d', $_[0]) }
sub of_task { my ($run, $name, $what) = @_; return value("SELECT $what FROM weir.task_run WHERE run_id = $run AND task_name = '$name'") }

my $entra = literal($json->encode({ type => 'entra_client_secret', tenant_id => 'local', client_id => 'weir-client', client_secret => 'app', authority => $address }));
my $workspace = id(1);
value(qq{
	SELECT weir.create_secret('app', 'weir-secret');
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_connection('adf', 'adf', '$address/adf', $entra, '{"subscription_id": "s1", "resource_group": "rg", "factory": "adf-dev", "settle_seconds": 0}');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}', '{"settle_seconds": 2}');
	SELECT weir.create_connection('fabric', 'fabric', '$address/fabric/v1', $entra, '{"workspace_id": "$workspace", "settle_seconds": 1}');
	SELECT weir.create_connection('hns', 'storage', '$address/hns/blob', $entra, '{"dfs_url": "$address/hns/dfs"}');
	SELECT weir.create_connection('vault', 'keyvault', '$address/vault', $entra);
	SELECT weir.create_connection('api', 'http', '$address/http', '{"type": "none"}')});

# --- through all of them

my @chain = (
	{ name => 'land', kind => 'adf_pipeline', connection => 'adf', spec => { pipeline => 'answer' } },
	{ name => 'job', kind => 'databricks_job', connection => 'dbx', spec => { job_id => '{{params.job}}', outputs => [ 'look', 'count', 'gone' ], job_parameters => { day => '{{tasks.land.output.returnValue.day}}' } } },
	{ name => 'notebook', kind => 'databricks_notebook', connection => 'dbx',
		spec => { notebook_path => '/Shared/echo', base_parameters => { day => '{{tasks.job.output.outputs.look.exit_value.day}}', rows => '{{tasks.land.output.returnValue.rows}}' } } },
	{ name => 'statement', kind => 'databricks_sql', connection => 'dbx',
		spec => { warehouse_id => 'wh1', statement => 'SELECT :day AS day, :rows * 2 AS twice', parameters => { day => '{{tasks.notebook.output.exit_value.day}}', rows => '{{tasks.land.output.returnValue.rows}}' } } },
	{ name => 'score', kind => 'databricks_serving', connection => 'dbx',
		spec => { endpoint => 'adder', dataframe_records => [ { a => '{{tasks.statement.output.rows[0].twice}}', b => 1 } ] } },
	{ name => 'item', kind => 'fabric_item', connection => 'fabric',
		spec => { item => id(11), job_type => 'RunNotebook', parameters => { seconds => 0, note => '{{tasks.score.output.predictions[0]}}' } } },
	{ name => 'file', kind => 'storage', connection => 'hns',
		spec => { operation => 'put', container => 'lake', name => 'out/{{tasks.statement.output.rows[0].day}}/done.json', overwrite => JSON::PP::true,
			text => { score => '{{tasks.score.output.predictions[0]}}', fabric => '{{tasks.item.output.status}}' } } },
	{ name => 'files', kind => 'storage', connection => 'hns', spec => { operation => 'list', container => 'lake', prefix => 'out/' } },
	{ name => 'call', kind => 'http', connection => 'api',
		spec => { method => 'POST', path => '/json/done', link => '$.json.page', body => { files => '{{tasks.files.output.files}}', page => 'https://ui.example.com/run/1' } } },
	{ name => 'keep', kind => 'sql', spec => { sql => q{SELECT {{tasks.call.output.body.json.files[0].name}} AS name, {{tasks.score.output.predictions[0]}} AS score, {{tasks.item.output.status}} AS fabric} } });
$chain[$_]{depends_on} = [ $chain[ $_ - 1 ]{name} ] foreach 1 .. $#chain;
value("SELECT weir.create_pipeline('chain', " . literal($json->encode({ tasks => \@chain, parameters => { job => { type => 'bigint', default => 104 } } })) . ')');
my $run = weir_trigger($node, 'chain');
is(wait_for_run($node, $run), 'succeeded', 'one engine after the other')
  or diag(value("SELECT string_agg(concat_ws(' ', task_name, status, error_message), E'\n' ORDER BY task_no) FROM weir.task_run WHERE run_id = $run"));
is(of_task($run, 'land', "output->>'returnValue'"), '{"day": "2026-01-02", "rows": 7}', 'what a Data Factory pipeline returns');
is($cloud->ledger(operation => 'databricks.run-now')->[-1]{job_id}, '104', 'a parameter of the run chose the job');
is(of_task($run, 'job', "output #>> '{outputs,count,exit_value,rows}' || ' ' || (output #> '{outputs,gone}')::text"), '5 null', 'a job was told, and each of its tasks says what it exits with');
is(of_task($run, 'job', "output->'unknown_outputs'"), '["gone"]', 'one that it does not have is named');
is(value("SELECT activity || ' ' || status || ' ' || error_code || ': ' || error_message FROM weir.activity WHERE run_id = $run AND activity = 'job/gone'"),
	'job/gone skipped unknown_task: "outputs" names task "gone", which the job run does not have; its tasks are: look, count', 'and the log says which ones there are');
is($cloud->started('databricks.run-now'), 1, 'nothing was started again for it');
is(of_task($run, 'notebook', "output->'exit_value'->>'day'"), '2026-01-02', 'a notebook was told, and says it again');
is(of_task($run, 'statement', "output->'rows'"), '[{"day": "2026-01-02", "twice": 14}]', 'a number stayed a number');
is(of_task($run, 'score', "output->'predictions'"), '[15]', 'and was reckoned with');
is(of_task($run, 'keep', "output->'rows'"), '[{"name": "out/2026-01-02/done.json", "score": 15, "fabric": "Completed"}]', 'a statement of the database has what came out');

# --- runs that start together: each task has what its own run was given

value("SELECT weir.create_pipeline('together', " . literal($json->encode({
	max_concurrent_runs => 3, parameters => { who => { type => 'text', required => JSON::PP::true } },
	tasks => [ map { { name => $_, kind => 'http', connection => 'api',
		spec => { method => 'POST', path => '/json/done', body => { run => '{{run.id}}', who => '{{params.who}}', task => '{{task.name}}' } } } } ('a', 'b') ] })) . ')');
my @together = split /\n/, value(q{SELECT weir.trigger('together', jsonb_build_object('who', w)) FROM unnest('{ann,bob,cat}'::text[]) w});
is(wait_for_run($node, $_), 'succeeded', 'one of three runs that start together') foreach @together;
is(value("SELECT string_agg(a.request->'body'->>'task' || ' ' || (a.request->'body'->>'who') || ' ' || ((a.request->'body'->>'run')::bigint - $together[0]), ', ' ORDER BY a.task_run_id)"
	. " FROM weir.attempt a WHERE a.run_id IN (" . join(', ', @together) . ')'),
	'a ann 0, b ann 0, a bob 1, b bob 1, a cat 2, b cat 2', 'nobody was told what another run was given');

# --- the engines' own pages

my %page = (
	land => qr{^https://adf\.azure\.com/en/monitoring/pipelineruns/[0-9a-f-]{36}\?factory=},
	job => qr{^\Q$address\E/dbx/\?o=\d+#job/104/run/\d+$},
	notebook => qr{^\Q$address\E/dbx/\?o=\d+#job/\d+/run/\d+$},
	statement => qr{/sql/history\?queryId=},
	score => qr{/ml/endpoints/adder$},
	item => qr{/synapsenotebooks/},
	call => qr{^https://ui\.example\.com/run/1$});
like(of_task($run, $_, "coalesce(external_url, 'none')"), $page{$_}, "$_: link") foreach sort keys %page;
is(value("SELECT activity || ' ' || status FROM weir.activity WHERE run_id = $run AND activity LIKE 'land/%'"), 'land/Wait succeeded', 'activities of a Data Factory pipeline are in the log');

# --- checked again once it is rendered: a user error, and nothing is sent

value(q{CREATE TABLE public.given (text text); INSERT INTO public.given VALUES ('{{b}}: / "?')});
my %wrong = (
	adf_pipeline => [ 'adf', { pipeline => '{{tasks.given.output.rows[0].text}}' }, qr/not a valid name of a Data Factory pipeline/ ],
	databricks_job => [ 'dbx', { job_id => '{{tasks.given.output.rows[0].text}}' }, qr/"job_id" must be a positive integer/ ],
	databricks_notebook => [ 'dbx', { notebook_path => '{{tasks.given.output.rows[0].text}}' }, qr/"notebook_path" must be an absolute path/ ],
	databricks_pipeline => [ 'dbx', { pipeline_id => 'flights', when_active => '{{tasks.given.output.rows[0].text}}' }, qr/"when_active" must be "wait" or "fail"/ ],
	databricks_sql => [ 'dbx', { statement => 'SELECT 1', warehouse_id => 'wh1', max_rows => '{{tasks.given.output.rows[0].text}}' }, qr/"max_rows" must be an integer/ ],
	fabric_item => [ 'fabric', { item => '{{tasks.given.output.rows[0].text}}', job_type => 'RunNotebook' }, qr/"item" must be an id/ ],
	http => [ 'api', { path => '/json', method => '{{tasks.given.output.rows[0].text}}' }, qr/method/ ],
	keyvault => [ 'vault', { operation => 'get', name => '{{tasks.given.output.rows[0].text}}' }, qr/not the name of a secret/ ],
	storage => [ 'hns', { operation => 'list', container => '{{tasks.given.output.rows[0].text}}' }, qr/not the name of a container/ ],
	wait => [ undef, { until => '{{tasks.given.output.rows[0].text}}' }, qr/until/ ]);
foreach my $kind (sort keys %wrong)
{
	my ($connection, $spec, $expected) = @{ $wrong{$kind} };
	my $ledger = $cloud->ledger(limit => 1);
	my $since = @$ledger ? $ledger->[-1]{seq} : 0;
	value("SELECT weir.create_pipeline('wrong_$kind', " . literal($json->encode({ tasks => [
		{ name => 'given', kind => 'sql', spec => { sql => 'SELECT text FROM public.given' } },
		{ name => 'it', kind => $kind, spec => $spec, depends_on => ['given'], retry => { max_attempts => 3, initial_delay => 0 }, (defined $connection ? (connection => $connection) : ()) } ] })) . ')');
	$run = weir_trigger($node, "wrong_$kind");
	is(wait_for_run($node, $run), 'failed', "$kind: refused once it is rendered");
	like(value("SELECT string_agg(a.failure_type || ' ' || a.error_message, E'\n') FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE t.run_id = $run AND t.task_name = 'it'"),
		qr/^user [^\n]*$expected[^\n]*$/, "$kind: as a user error, and not tried again");
	is(scalar(@{ $cloud->ledger(since => $since) }), 0, "$kind: nothing was sent");
}

$node->stop;
done_testing();
