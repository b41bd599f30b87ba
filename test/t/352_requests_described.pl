# Every request that weir sends is one that the vendors describe.  A session in
# which every kind is started, polled, cancelled and looked for, connections are
# tried and tokens are fetched is recorded by the local cloud; what was recorded
# is compared with the published descriptions (WEIR_SPECS names their folder),
# and, for Databricks, with the SDK it generates from its own.
#
# npm: azurite@3.35.0
# pypi: databricks-sdk==0.156.0
# pypi: jsonschema==4.26.0

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirAzurite;
use WeirPackages;
use WeirSignIn;
use WeirTest;

my $specs = $ENV{WEIR_SPECS} // '';
plan skip_all => 'no published descriptions: WEIR_SPECS is not set' if $specs eq '';
plan skip_all => "no published descriptions: $specs is no folder" unless -d $specs;
my $reason = missing_pypi();
plan skip_all => $reason if defined $reason;

my $json = JSON::PP->new->canonical->ascii;
my ($true, $false) = (JSON::PP::true, JSON::PP::false);
my $recording = PostgreSQL::Test::Utils::tempdir() . '/recording';
my $node = weir_node('described', start => 0);
my $cloud = weir_cloud(undef, speed => 10, record => $recording);
my $address = $cloud->address;
my $azurite = WeirAzurite->new;

$node->append_conf('postgresql.conf', "weir.identity_endpoint = '$address/identity'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION weir');

sub value { return $node->safe_psql('postgres', $_[0]) }
sub id { return sprintf('00000000-0000-4000-8000-%012d', $_[0]) }

# A run of a new pipeline of one task
my $number = 0;
sub start
{
	my ($kind, $connection, $spec, %more) = @_;
	my $name = 'p' . ++$number;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({
		tasks => [ { name => 'it', kind => $kind, connection => $connection, spec => $spec, %more } ] })) . ')');
	return weir_trigger($node, $name);
}
sub ended
{
	my ($run, $expected, $what) = @_;
	is(wait_for_run($node, $run), $expected, $what) or diag(task_error($node, $run));
	return $run;
}
# Runs that need not wait for each other; settle() sees how they ended
my @going;
sub good { my ($what, @task) = @_; push @going, [ start(@task), 'succeeded', $what ]; return }
sub settle { ended(@{ shift @going }) while @going; return }
sub alone { my ($what, @task) = @_; settle(); return ended(start(@task), 'succeeded', $what) }
sub cancelled
{
	my ($what, @task) = @_;
	my $run = start(@task);
	wait_until($node, 'it runs out there', "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run");
	value("SELECT weir.cancel($run)");
	return ended($run, 'cancelled', $what);
}
sub repair
{
	my ($run) = @_;
	value("SELECT weir.repair($run)");
	wait_until($node, 'the repair has begun', "SELECT repair_no = 1 FROM weir.run WHERE run_id = $run");
	return;
}
# The answer to the start is lost, and what was started is found.
sub found
{
	my ($what, $operation, @task) = @_;
	settle();
	$cloud->add_fault(operation => $operation, fault => 'reset_after');
	return ended(start(@task), 'succeeded', $what);
}

# --- connections, with every way to sign in that the local cloud knows
my %client = (client_id => 'weir-client', client_secret => 'app');
my $entra = { type => 'entra_client_secret', tenant_id => 'local', authority => $address, %client };
my $factory = { subscription_id => 's1', resource_group => 'rg-dev', factory => 'adf-dev', settle_seconds => 1 };
create_secret($node, 'app', 'weir-secret');
create_secret($node, 'pat', 'dapi-local');
create_secret($node, 'new_password', 'a-new-password');
create_connection($node, 'adf', 'adf', "$address/adf", $entra, $factory);
create_connection($node, 'adf_machine', 'adf', "$address/adf", { type => 'managed_identity' }, $factory);
create_connection($node, 'dbx', 'databricks', "$address/dbx", { type => 'pat', token => 'pat' }, { settle_seconds => 2 });
create_connection($node, 'dbx_oauth', 'databricks', "$address/dbx", { type => 'databricks_oauth', %client });
create_connection($node, 'dbx_entra', 'databricks', "$address/dbx", $entra);
create_connection($node, 'fabric', 'fabric', "$address/fabric/v1", $entra, { workspace_id => id(1), settle_seconds => 1 });
create_connection($node, 'vault', 'keyvault', "$address/vault", $entra);
create_connection($node, 'lake', 'storage', "$address/hns/blob", $entra, { dfs_url => "$address/hns/dfs" });
create_connection($node, 'queue', 'storage', "$address/queue", $entra);
create_connection($node, 'service', 'http', "$address/http", { type => 'none' });

# --- Data Factory
my $copy = { pipeline => 'copy_flights', parameters => { row_audit_id => '{{row_audit_id}}', limit => 5, list => [ 1, 'a' ], flag => $true } };
good('adf: a copy', 'adf_pipeline', 'adf', $copy);
good('adf: signed in as the machine', 'adf_pipeline', 'adf_machine', { pipeline => 'wait', parameters => { seconds => 0 } });
found('adf: a lost start', 'adf.createRun', 'adf_pipeline', 'adf', $copy);
cancelled('adf: a cancel', 'adf_pipeline', 'adf', { pipeline => 'wait', parameters => { seconds => 100000 } });
settle();
$cloud->add_fault(fault => 'copy_fails');
my $run = ended(start('adf_pipeline', 'adf', { %$copy, on_restart => 'recover' }), 'failed', 'adf: a failure');
repair($run);
ended($run, 'succeeded', 'adf: its recovery');

# --- Databricks
good("databricks_job: signed in through $_", 'databricks_job', $_, { job_id => 102, job_parameters => { seconds => '0' } }) foreach 'dbx', 'dbx_oauth', 'dbx_entra';
cancelled('databricks_job: a cancel', 'databricks_job', 'dbx', { job_id => 102, job_parameters => { seconds => '100000' } });
$run = ended(start('databricks_job', 'dbx', { job_id => 103, repair => $true }), 'failed', 'databricks_job: a failure');
repair($run);
ended($run, 'failed', 'databricks_job: its repair');
good('databricks_notebook', 'databricks_notebook', 'dbx', { notebook_path => '/Shared/echo', base_parameters => { n => 1 } });
good('databricks_notebook: of a repository', 'databricks_notebook', 'dbx', { notebook_path => 'etl/echo',
	git_source => { git_url => 'https://example.com/a.git', git_provider => 'gitHub', git_branch => 'main' } });
good('databricks_python', 'databricks_python', 'dbx', { python_file => '/Shared/echo.py', parameters => [ 'a', 2 ], environment => { environment_version => '2' } });
good('databricks_python: a wheel', 'databricks_python', 'dbx', { package_name => 'p', entry_point => 'echo', named_parameters => { a => 1 },
	environment => { environment_version => '2', dependencies => ['p.whl'] } });
good('databricks_jar', 'databricks_jar', 'dbx', { main_class_name => 'com.example.echo', parameters => ['a'], libraries => [ { jar => '/x.jar' } ],
	existing_cluster_id => 'c1' });
my $cluster = { spark_version => '15.4.x-scala2.12', node_type_id => 'Standard_D4ds_v5', autoscale => { min_workers => 1, max_workers => 4 },
	spark_conf => { 'spark.speculation' => 'true' }, custom_tags => { team => 'load' } };
good('databricks_notebook: a job cluster', 'databricks_notebook', 'dbx', { notebook_path => '/Shared/echo', new_cluster => $cluster });
good('databricks_python: a job cluster', 'databricks_python', 'dbx', { python_file => '/Shared/echo.py', new_cluster => $cluster, libraries => [ { pypi => { package => 'p' } } ] });
good('databricks_python: a wheel on a job cluster', 'databricks_python', 'dbx', { package_name => 'p', entry_point => 'echo', new_cluster => $cluster,
	libraries => [ { whl => '/p.whl' } ] });
good('databricks_jar: a job cluster', 'databricks_jar', 'dbx', { main_class_name => 'com.example.echo', new_cluster => $cluster, libraries => [ { jar => '/x.jar' } ] });
good('databricks_sql_file', 'databricks_sql_file', 'dbx', { path => '/Shared/echo.sql', warehouse_id => 'wh1' });
my $statement = { warehouse_id => 'wh1', statement => 'SELECT :n * 2 AS n, :f AS f, :t AS t, :b AS b, :z AS z',
	parameters => { n => 21, f => 0.5, t => 'x', b => $true, z => undef } };
good('databricks_sql', 'databricks_sql', 'dbx', $statement);
settle();
$cloud->config(chunk_rows => 2);
alone('databricks_sql: several chunks', 'databricks_sql', 'dbx', { warehouse_id => 'wh1',
	statement => 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 7) SELECT i FROM n' });
found('databricks_sql: a lost start', 'databricks.execute', 'databricks_sql', 'dbx', $statement);
cancelled('databricks_sql: a cancel', 'databricks_sql', 'dbx', { warehouse_id => 'wh1', statement => 'SELECT 1 /* wait 100000 */' });
alone('databricks_pipeline', 'databricks_pipeline', 'dbx', { pipeline_id => 'flights' });
alone('databricks_pipeline: a part', 'databricks_pipeline', 'dbx', { pipeline_id => 'flights', refresh_selection => ['airports'] });
alone('databricks_pipeline: anew', 'databricks_pipeline', 'dbx', { pipeline_id => 'flights', full_refresh => $true });
found('databricks_pipeline: a lost start', 'databricks.pipeline-start', 'databricks_pipeline', 'dbx', { pipeline_id => 'flights' });
ended(start('databricks_pipeline', 'dbx', { pipeline_id => 'broken' }), 'failed', 'databricks_pipeline: a failure');
$cloud->add_fault(fault => 'never_ends', pipeline_id => 'flights');
cancelled('databricks_pipeline: a stop', 'databricks_pipeline', 'dbx', { pipeline_id => 'flights' });
good('databricks_serving: records', 'databricks_serving', 'dbx', { endpoint => 'adder', dataframe_records => [ { a => 1, b => 2 } ] });
good('databricks_serving: a chat', 'databricks_serving', 'dbx', { endpoint => 'chat', messages => [ { role => 'user', content => 'hello' } ], max_tokens => 5 });

# --- Fabric
my %item = (Pipeline => id(10), RunNotebook => id(11), sparkjob => id(12), TableMaintenance => id(13), Refresh => id(14));
good("fabric_item: $_", 'fabric_item', 'fabric', { item => $item{$_}, job_type => $_,
	$_ eq 'sparkjob' ? (execution_data => { commandLineArguments => 'x' }) : $_ eq 'TableMaintenance' ? () : (parameters => { seconds => 1, note => 'x' }) })
  foreach sort keys %item;
found('fabric_item: a lost start', 'fabric.run', 'fabric_item', 'fabric', { item => $item{RunNotebook}, job_type => 'RunNotebook', parameters => { seconds => 1 } });
cancelled('fabric_item: a cancel', 'fabric_item', 'fabric', { item => $item{RunNotebook}, job_type => 'RunNotebook', parameters => { seconds => 100000 } });
good('fabric_item: an operation', 'fabric_item', 'fabric', { call => {
	path => '/workspaces/' . id(1) . '/sqlEndpoints/' . id(20) . '/refreshMetadata', body => { seconds => 1 } } });

# --- Key Vault
good('keyvault: set', 'keyvault', 'vault', { operation => 'set', name => "password-$_", from_secret => 'new_password', expires_in_days => 60, tags => { owner => 'load' } }) foreach 1 .. 3;
settle();
good('keyvault: check', 'keyvault', 'vault', { operation => 'check', secrets => ['password-1'], expires_within_days => 1 });
settle();
$cloud->config(page_size => 2);
alone('keyvault: list', 'keyvault', 'vault', { operation => 'list' });
$cloud->config(page_size => 100);
create_connection($node, 'dbx_vault', 'databricks', "$address/dbx", { type => 'pat', token => 'keyvault:vault/password-1' });
$cloud->config(pats => [ 'dapi-local', 'a-new-password' ]);
alone('a token out of the vault', 'databricks_job', 'dbx_vault', { job_id => 102, job_parameters => { seconds => '0' } });

# --- queues
$cloud->config(queue_auth => 'bearer');
$cloud->call('POST', 'queues', { queue => $_, create => $true }) foreach 'callbacks', 'callbacks-poison';
$cloud->call('POST', 'queues', { queue => 'callbacks', text => 'of nobody' });
alone('webhook: a callback', 'webhook', 'queue', { queue => 'callbacks', every => 0.3, hide_seconds => 5, poison_after => 1, status => '$.state', succeeded => ['done'],
	request => { connection => 'service', method => 'POST', path => '/jobs', id => '$.id',
		body => { seconds => 2, callback => { queue => 'callbacks', token => '{token}' } } } });
is(value("SELECT is_ok FROM weir.test_connection('$_')"), 't', "test_connection: $_") foreach 'adf', 'dbx', 'fabric', 'vault', 'lake', 'service';

# --- storage: with a hierarchical namespace, and a real server without one
sub storage
{
	my ($connection, $container) = @_;
	my %at = (container => $container);
	good("$connection: put", 'storage', $connection, { operation => 'put', %at, name => "in/b c $_.csv", text => 'a,b' }) foreach 1 .. 3;
	good("$connection: list", 'storage', $connection, { operation => 'list', %at, prefix => 'in/', glob => '*.csv' });
	settle();
	good("$connection: wait", 'storage', $connection, { operation => 'wait', %at, prefix => 'in/', min_count => 3, every_seconds => 1 });
	settle();
	good("$connection: move", 'storage', $connection, { operation => 'move', %at, from => 'in/b c 1.csv', to => 'archive/2026/1.csv' });
	good("$connection: delete", 'storage', $connection, { operation => 'delete', %at, name => 'in/b c 2.csv' });
	settle();
	return;
}
storage('lake', 'lake');
# copies in the service's own time, one of them given up
create_connection($node, 'slow', 'storage', "$address/hns/blob", $entra);
alone('storage: a file to copy', 'storage', 'slow', { operation => 'put', container => 'lake', name => 'slow/a', text => 'x' });
$cloud->config(copy_seconds => 1);
alone('storage: a pending copy', 'storage', 'slow', { operation => 'copy', container => 'lake', from => 'slow/a', to => 'slow/b' });
$cloud->config(copy_seconds => 100000);
cancelled('storage: a copy that is aborted', 'storage', 'slow', { operation => 'move', container => 'lake', from => 'slow/a', to => 'slow/c' });
SKIP:
{
	skip 'storage: ' . WeirAzurite::missing(), 8 unless $azurite;
	$azurite->create_container('flat');
	$cloud->config(storage => $azurite->address);
	create_secret($node, 'account_key', $azurite->key);
	create_connection($node, 'flat', 'storage', "$address/$WeirAzurite::account", { type => 'shared_key', key => 'account_key' });
	storage('flat', 'flat');
	alone('flat: copy', 'storage', 'flat', { operation => 'copy', container => 'flat', from => 'in/b c 3.csv', to => 'copy/3.csv' });
}

$node->stop;

# --- what was recorded
my ($out, $err);
IPC::Run::run([ venv_python(), "$WeirTest::root/test/cloud/described/described.py", $specs, $recording ], '<', \undef, '>', \$out, '2>', \$err)
  or die "described.py: $err";
my $judged = $json->decode($out);
is(join("\n", @{ $judged->{findings} }), '', 'every request is as described');

my @expected = (
	qw(Pipelines_CreateRun PipelineRuns_Get PipelineRuns_Cancel PipelineRuns_QueryByFactory ActivityRuns_QueryByPipelineRun Factories_Get),
	map({ "JobsAPI.$_" } qw(run_now get_run get_run_output cancel_run submit)),
	map({ "StatementExecutionAPI.$_" } qw(execute_statement get_statement get_statement_result_chunk_n cancel_execution)),
	map({ "PipelinesAPI.$_" } qw(start_update get_update list_updates list_pipeline_events stop)),
	qw(QueryHistoryAPI.list ServingEndpointsAPI.query),
	map({ "JobScheduler_$_" } qw(RunOnDemandItemJob GetItemJobInstance ListItemJobInstances CancelItemJobInstance)),
	'Workspaces_ListWorkspaces', 'Service_ListContainersSegment', 'JobsAPI.list', 'JobsAPI.repair_run',
	qw(LongRunningOperations_GetOperationState LongRunningOperations_GetOperationResult),
	qw(GetSecret GetSecrets SetSecret Identity_GetToken),
	qw(Messages_Dequeue MessageId_Delete Messages_Enqueue),
	qw(Container_ListBlobFlatSegment Blob_GetProperties Blob_Delete BlockBlob_Upload Path_Create),
	$azurite ? 'Blob_StartCopyFromURL' : ());
cmp_ok($judged->{operations}{$_} // 0, '>', 0, "asked for: $_") foreach @expected;

# Described by no file: sign-in (an independent provider judges it in 303), what
# http tasks ask of anybody, and of Fabric two operations without a description.
my %undescribed = map { $_ => 1 } ('entra.token POST', 'databricks.token POST', 'http.job-start POST', 'http.json GET', 'http.unknown GET',
	'fabric.activities POST', 'fabric.refresh POST');
is(join(', ', grep { !$undescribed{$_} } sort keys %{ $judged->{undescribed} }), '', 'nothing else is undescribed');

# --- and the comparison is one: a recording with one thing wrong is not as described
sub wrong
{
	my ($what, $operation, $expected, $change) = @_;
	my ($line) = grep { $_->{operation} eq $operation } map { $json->decode($_) } split /\n/, file_text($recording);
	my $body = $line->{body} =~ /^\{/ ? $json->decode($line->{body}) : undef;
	$change->($line, $body);
	$line->{body} = $json->encode($body) if defined $body;
	write_file("$recording.wrong", $json->encode($line) . "\n");
	IPC::Run::run([ venv_python(), "$WeirTest::root/test/cloud/described/described.py", $specs, "$recording.wrong" ], '<', \undef, '>', \$out, '2>', \$err)
	  or die "described.py: $err";
	like(join("\n", @{ $json->decode($out)->{findings} }), $expected, "seen: $what");
	return;
}
wrong('a parameter of the query string that is missing', 'adf.getRun', qr/query api-version is required/, sub { $_[0]{target} =~ s/\?.*// });
wrong('one that nobody knows', 'adf.getRun', qr/query colour is not known/, sub { $_[0]{target} .= '&colour=red' });
wrong('a property that is missing', 'adf.queryActivityRuns', qr/'lastUpdatedBefore' is a required property/, sub { delete $_[1]{lastUpdatedBefore} });
wrong('a property nobody knows', 'adf.queryActivityRuns', qr/body \.colour is not known/, sub { $_[1]{colour} = 'red' });
wrong('a value that is not one of those listed', 'adf.queryActivityRuns', qr/'UP' is not one of/, sub { $_[1]{orderBy}[0]{order} = 'UP' });
wrong('a wrong type', 'keyvault.set', qr/body value: 1 is not of type 'string'/, sub { $_[1]{value} = 1 });
wrong('a header that is missing', 'entra.identity', qr/header metadata is required/, sub { delete $_[0]{headers}{metadata} });
wrong('a header that nobody knows', 'hns.put', qr/header x-ms-colour is not known/, sub { $_[0]{headers}{'x-ms-colour'} = 'red' });
wrong('a path parameter', 'adf.getRun', qr/path factoryName: .* is too short/, sub { $_[0]{target} =~ s/adf-dev/f/ });
wrong('a field the SDK does not know', 'databricks.run-now', qr/JobsAPI.run_now: colour is not known/, sub { $_[1]{colour} = 'red' });
wrong('a number that is text', 'databricks.run-now', qr/job_id: '102' is not int/, sub { $_[1]{job_id} = '102' });
wrong('a field of a job cluster', 'databricks.submit', qr/tasks\[0\]\.new_cluster\.colour is not known/, sub { $_[1]{tasks}[0]{new_cluster} = { %$cluster, colour => 'red' } });
wrong('a field deep inside', 'databricks.submit', qr/tasks\[0\]\.notebook_task\.colour is not known/, sub { $_[1]{tasks}[0]{notebook_task}{colour} = 'red' });

done_testing();
