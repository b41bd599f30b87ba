# kill -9 of the conductor while a Databricks kind is being started, runs, or
# has just ended: the run goes on by itself, and the ledger shows one start.
# What cannot be known after that is said, and not tried again.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('crash');
my $cloud = weir_cloud(undef, speed => 3);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

value(qq{
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}', '{"settle_seconds": 2}')});

my %spec = (
	notebook => { notebook_path => '/Shared/echo', base_parameters => { n => '{{row_audit_id}}' } },
	python => { python_file => '/Shared/echo.py', parameters => ['{{row_audit_id}}'], existing_cluster_id => 'c1' },
	jar => { main_class_name => 'com.example.echo', libraries => [ { jar => '/x.jar' } ], existing_cluster_id => 'c1' },
	sql_file => { path => '/Shared/echo.sql', warehouse_id => 'wh1' },
	sql => { statement => 'INSERT INTO done VALUES (:n)', parameters => { n => '{{row_audit_id}}' }, warehouse_id => 'wh1' },
	pipeline => { pipeline_id => 'flights' },
	serving => { endpoint => 'adder', instances => [ [ 1, 2 ] ] });
my %operation = (notebook => 'submit', python => 'submit', jar => 'submit', sql_file => 'submit', sql => 'execute',
	pipeline => 'pipeline-start', serving => 'invoke');

value("SELECT weir.create_pipeline('$_', " . literal($json->encode({ tasks => [
	{ name => 'it', kind => "databricks_$_", connection => 'dbx', spec => $spec{$_} } ] })) . ')') foreach sort keys %spec;
value('SELECT weir.create_pipeline(' . "'table', " . literal($json->encode({ tasks => [
	{ name => 'it', kind => 'databricks_sql', connection => 'dbx', spec => { statement => 'CREATE TABLE done (n)', warehouse_id => 'wh1' } } ] })) . ')');
is(wait_for_run($node, weir_trigger($node, 'table')), 'succeeded', 'a table');

my $since = 0;
sub asked { my ($operation) = @_; return sub { $cloud->wait(operation => "databricks.$operation", since => $since) } }
sub begun { return sub { wait_until($node, 'it runs', "SELECT external_run_id IS NOT NULL AND status = 'running' FROM weir.task_run WHERE run_id = $_[0]") } }

my %poll = (notebook => 'get', python => 'get', jar => 'get', sql_file => 'get', sql => 'statement', pipeline => 'pipeline-update');

# What a fault holds goes on when it is removed, after the crash.
my @moments;
foreach my $kind (qw(notebook python jar sql_file sql pipeline))
{
	push @moments,
	  [ $kind, 'while the start is not answered', asked($operation{$kind}), { fault => 'delay', delay_ms => 60000 } ],
	  [ $kind, 'while it runs', asked($poll{$kind}), { fault => 'hold', operation => "databricks.$poll{$kind}", times => undef } ];
}
push @moments,
  [ 'notebook', 'after half an answer of the start', asked('submit'), { fault => 'half_body' } ],
  [ 'sql', 'after the answer of the start was lost', asked('execute'), { fault => 'reset_after' } ],
  [ 'pipeline', 'after the answer of the start was lost', asked('pipeline-start'), { fault => 'reset_after' } ],
  [ 'notebook', 'while its output is read', asked('get-output'), { fault => 'delay', operation => 'databricks.get-output', delay_ms => 60000 } ],
  [ 'pipeline', 'while its events are read', asked('pipeline-events'), { fault => 'delay', operation => 'databricks.pipeline-events', delay_ms => 60000 } ];

foreach my $moment (@moments)
{
	my ($kind, $name, $wait, $fault) = @$moment;
	my $ledger = $cloud->ledger(limit => 1);

	$since = @$ledger ? $ledger->[-1]{seq} : 0;
	$cloud->clear_faults;
	$cloud->add_fault(operation => "databricks.$operation{$kind}", %$fault) if $fault;
	my $run = weir_trigger($node, $kind);
	$wait->($run);
	kill9_backend($node, 'weir conductor');
	$cloud->clear_faults;
	is(wait_for_run($node, $run), 'succeeded', "$kind, $name: the run succeeds");
	is($cloud->started("databricks.$operation{$kind}", since => $since), 1, "$kind, $name: started once");
	is(value("SELECT count(*) FROM weir.attempt WHERE run_id = $run"), 1, "$kind, $name: one attempt");
}

# The warehouse itself knows how often it was told: once for every run.
$cloud->clear_faults;
value('SELECT weir.create_pipeline(' . "'count', " . literal($json->encode({ tasks => [
	{ name => 'it', kind => 'databricks_sql', connection => 'dbx', spec => { statement => 'SELECT count(*) AS n, count(DISTINCT n) AS d FROM done', warehouse_id => 'wh1' } } ] })) . ')');
my $count = weir_trigger($node, 'count');
is(wait_for_run($node, $count), 'succeeded', 'counted');
is(value("SELECT output #>> '{rows,0}' FROM weir.task_run WHERE run_id = $count"), '{"d": 3, "n": 3}', 'each statement was executed once');

# Nobody can be asked what a model was asked.
$since = $cloud->ledger(limit => 1)->[-1]{seq};
$cloud->add_fault(operation => 'databricks.invoke', fault => 'delay', delay_ms => 60000);
my $model = weir_trigger($node, 'serving');
asked('invoke')->();
kill9_backend($node, 'weir conductor');
is(wait_for_run($node, $model), 'failed', 'serving: the outcome is not known');
is(value("SELECT error_code FROM weir.attempt WHERE run_id = $model") . ' ' . $cloud->started('databricks.invoke', since => $since), 'outcome_unknown 1', 'serving: asked once');
$cloud->clear_faults;

# A cancel that the crash interrupts is carried out afterwards.
foreach my $kind (qw(notebook sql pipeline))
{
	$since = $cloud->ledger(limit => 1)->[-1]{seq};
	$cloud->add_fault(fault => 'never_ends');
	my $run = weir_trigger($node, $kind);
	begun()->($run);
	value("SELECT weir.cancel($run)");
	kill9_backend($node, 'weir conductor');
	is(wait_for_run($node, $run), 'cancelled', "$kind: cancelled over a crash");
	is($cloud->started("databricks.$operation{$kind}", since => $since), 1, "$kind: started once");
	$cloud->clear_faults;
}
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');

$node->stop;
done_testing();
