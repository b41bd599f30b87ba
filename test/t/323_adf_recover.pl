# A Data Factory run that failed half-way, and what a repair makes of it: with
# "recover" it goes on at the activity that failed, unless the task's
# parameters are other ones by now; activities are read page by page.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('recover');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

value(qq{
	SELECT weir.create_secret('entra_secret', 'weir-secret');
	SELECT weir.create_connection('adf', 'adf', '$address/adf', '{"type": "entra_client_secret", "tenant_id": "local",
		"client_id": "weir-client", "client_secret": "entra_secret", "authority": "$address"}',
		'{"subscription_id": "s1", "resource_group": "rg", "factory": "adf-dev", "settle_seconds": 1}')});
$cloud->call('POST', 'pipelines', { name => 'long', activities => [ map { { name => "step $_", type => 'Lookup', seconds => 0.01 } } (1 .. 7) ] });

sub pipeline
{
	my ($name, %spec) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ parameters => { rows => { type => 'bigint', default => 10 } },
		tasks => [ { name => 'copy', kind => 'adf_pipeline', connection => 'adf', phase => 'land', spec => { pipeline => 'copy_flights', %spec } } ] })) . ')');
	return;
}
sub of_task { my ($run, $what) = @_; return value("SELECT $what FROM weir.task_run WHERE run_id = $run AND task_name = 'copy'") }
sub attempts { return value("SELECT string_agg(status || coalesce(' ' || error_code, ''), ', ' ORDER BY attempt_no) FROM weir.attempt WHERE run_id = $_[0]") }

# Activities of every run of the factory, in the order of their starts.
sub activities { return join(' | ', map { join(' ', map { "$_->{activity} $_->{status}" } @{ $_->{activities} }) } @{ $cloud->runs->{adf} }) }

# A run whose copy fails, and its repair.
sub failed_and_repaired
{
	my ($name, $params) = @_;
	$cloud->reset;
	$cloud->add_fault(fault => 'copy_fails', after_rows => 3);
	my $run = weir_trigger($node, $name);
	is(wait_for_run($node, $run), 'failed', "$name: the copy fails");
	value("SELECT weir.repair($run" . (defined $params ? ", '$params'" : '') . ')');
	is(wait_for_run($node, $run), 'succeeded', "$name: repaired");
	return $run;
}

my %parameters = (parameters => { row_audit_id => '{{row_audit_id}}', limit => '{{params.rows}}', list => [ 1, 'a' ], flag => JSON::PP::true });
pipeline('again', %parameters);
failed_and_repaired('again');
is(activities(), 'Lookup Succeeded Copy Failed | Lookup Succeeded Copy Succeeded', 'again: a new run does everything');

pipeline('recovered', %parameters, on_restart => 'recover');
my $run = failed_and_repaired('recovered');
is(activities(), 'Lookup Succeeded Copy Failed | Copy Succeeded', 'recovered: from the activity that failed');
is(of_task($run, "rows_read || ' ' || rows_written"), '10 10', 'recovered: with its rows');

$run = failed_and_repaired('recovered', '{"rows": 20}');
is(activities(), 'Lookup Succeeded Copy Failed | Lookup Succeeded Copy Succeeded', 'corrected parameters: a new run, as a recovery would take the old ones');
is(of_task($run, 'rows_written'), '20', 'corrected parameters: they count');

# the answer to the recovery is lost: it is found in the group
$cloud->reset;
$cloud->add_fault(fault => 'copy_fails');
$run = weir_trigger($node, 'recovered');
is(wait_for_run($node, $run), 'failed', 'lost: the copy fails');
$cloud->add_fault(operation => 'adf.createRun', fault => 'reset_after');
value("SELECT weir.repair($run)");
is(wait_for_run($node, $run), 'succeeded', 'lost: the recovery whose answer was lost is found');
is($cloud->started('adf.createRun'), 2, 'lost: and not started again');

# it cannot be recovered any more
$cloud->reset;
$cloud->add_fault(fault => 'copy_fails');
$run = weir_trigger($node, 'recovered');
is(wait_for_run($node, $run), 'failed', 'gone: the copy fails');
$cloud->add_fault(operation => 'adf.getRun', fault => 'status', status => 404, body => { error => { code => 'PipelineRunNotFound', message => 'gone' } });
value("SELECT weir.repair($run)");
is(wait_for_run($node, $run), 'succeeded', 'gone: a new run is started');

# kill -9 between the decision and the answer
$cloud->reset;
$cloud->add_fault(fault => 'copy_fails');
$run = weir_trigger($node, 'recovered');
is(wait_for_run($node, $run), 'failed', 'killed: the copy fails');
$cloud->add_fault(operation => 'adf.createRun', fault => 'delay', delay_ms => 600000);
value("SELECT weir.repair($run)");
$cloud->wait(operation => 'adf.createRun', fault => 'delay', started => 'true');
kill9_backend($node, 'weir conductor');
is(wait_for_run($node, $run), 'succeeded', 'killed: the recovery goes on');
is($cloud->started('adf.createRun'), 2, 'killed: one recovery');

# D: a new run resumes what failed in the run before, by a new trigger as by weir.restart, with the parameters that the first had
value(qq{SELECT weir.create_secret('pat', 'dapi-local');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "pat"}', '{"settle_seconds": 1}');
	CREATE TABLE landed (id bigint)});
my $land = { name => 'land', kind => 'sql', phase => 'land', spec => { sql => 'INSERT INTO landed VALUES ({{row_audit_id}})' } };
my %resumed = (
	adf => { task => { kind => 'adf_pipeline', connection => 'adf', spec => { pipeline => 'copy_flights', %parameters, on_restart => 'recover' } },
		fault => { fault => 'copy_fails', after_rows => 3 }, begun => sub { activities() }, expected => 'Lookup Succeeded Copy Failed | Copy Succeeded' },
	databricks => { task => { kind => 'databricks_job', connection => 'dbx', spec => { job_id => 102, job_parameters => { seconds => '0' }, repair => JSON::PP::true } },
		fault => { fault => 'task_fails', message => 'the cluster was lost' }, begun => sub { join(' ', map { $cloud->started("databricks.$_") } 'run-now', 'repair') }, expected => '1 1' });
foreach my $way ('weir.trigger', 'weir.restart')
{
	foreach my $engine (sort keys %resumed)
	{
		my $how = $resumed{$engine};
		my $name = "resumed_${engine}_" . ($way =~ s/weir\.//r);
		my $what = "D, $engine, $way";
		value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ parameters => { rows => { type => 'bigint', default => 10 } },
			tasks => [ $land, { name => 'copy', depends_on => ['land'], %{ $how->{task} } } ] })) . ')');
		$cloud->reset;
		$cloud->add_fault(%{ $how->{fault} });
		my $first = weir_trigger($node, $name);
		is(wait_for_run($node, $first), 'failed', "$what: fails after the landing");
		my $second = $way eq 'weir.restart' ? value("SELECT weir.restart($first)") : weir_trigger($node, $name);
		isnt($second, $first, "$what: another run");
		is(wait_for_run($node, $second), 'succeeded', "$what: succeeds") or diag(value("SELECT string_agg(message, '; ') FROM weir.error WHERE run_id = $second"));
		is($how->{begun}->(), $how->{expected}, "$what: goes on with the run of the engine that failed");
		is(value("SELECT row_audit_id FROM weir.runs WHERE run_id = $second"), $first, "$what: and with what the first run landed");
		is(value("SELECT count(*) FROM landed WHERE id IN ($first, $second)"), '1', "$what: which is there once");
	}
}

# activities come in pages, one of which is lost
$cloud->reset;
$cloud->config(page_size => 2);
$cloud->add_fault(operation => 'adf.queryActivityRuns', fault => $_, after => 2) foreach ('half_body', 'html');
value("SELECT weir.create_pipeline('paged', " . literal($json->encode({ tasks => [ { name => 'copy', kind => 'adf_pipeline', connection => 'adf', spec => { pipeline => 'long' } } ] })) . ')');
$run = weir_trigger($node, 'paged');
is(wait_for_run($node, $run), 'succeeded', 'paged: it succeeds');
is(value("SELECT count(*) FROM weir.activity WHERE run_id = $run AND status = 'succeeded'"), '7', 'paged: all activities are in the log, once');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), 0, 'no attempt is left over');
$node->stop;
done_testing();
