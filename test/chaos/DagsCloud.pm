# DagsCloud.pm - random tasks of the kinds that call the cloud, see Dags.pm.
#
# Each is given the task as weir gets it and what the judge knows of it.

package DagsCloud;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use JSON::PP;

use Dice;

our @EXPORT = qw(%cloud_kinds);

my ($true, $false) = (JSON::PP::true, JSON::PP::false);

# What follows when nobody knows whether it began.
sub random_policy
{
	my ($task) = @_;

	$task->{on_uncertain} = one_of(qw(fail ask ask assume_started send_again)) if chance(0.8);
	return;
}

sub http_task
{
	my ($task) = @_;

	$task->{connection} = 'chaos_http';
	$task->{spec} = weighted(
		{ method => 'POST', path => '/json/effect', body => { task => '{{task.name}}' }, idempotent => $true } => 3,
		{ method => 'POST', path => '/json/once', body => { task => '{{task.name}}' } } => 4,
		{
			method => 'POST', path => '/jobs', body => { seconds => one_of(0.1, 5, 20), (chance(0.2) ? (fail => 'no disk') : ()) }, id => '$.id',
			poll => { path => '/jobs/{id}', every => 0.1, status => '$.state', succeeded => ['done'], failed => ['failed'], cancelled => ['stopped'] },
			cancel => { method => 'POST', path => '/jobs/{id}/stop' }, idempotent => $true
		} => 2,
		{ path => '/delay/150' } => 2,
		{ path => '/status/404' } => 1);
	random_policy($task);
	$task->{timeout} = one_of(0.4, 0.8) if chance(0.1);
	return;
}

sub adf_task
{
	my ($task) = @_;

	$task->{connection} = 'chaos_adf';
	$task->{spec} = weighted(
		{ pipeline => 'wait', parameters => { seconds => one_of(1, 5, 20) } } => 4,
		{ pipeline => 'copy_flights', parameters => { row_audit_id => '{{row_audit_id}}', limit => 10 } } => 1,
		{ pipeline => 'fail' } => 1);
	$task->{timeout} = one_of(0.4, 0.8) if chance(0.1);
	return;
}

sub job_task
{
	my ($task) = @_;

	$task->{connection} = 'chaos_dbx';
	$task->{spec} = weighted(
		{ job_id => 102, job_parameters => { seconds => one_of(1, 5, 20) } } => 4,
		{ job_id => 103 } => $Dags::theme eq 'unknown' ? 4 : 1);
	$task->{spec}{repair} = $false if chance(0.3);
	$task->{timeout} = one_of(0.4, 0.8) if chance(0.1);
	return;
}

sub notebook_task
{
	my ($task) = @_;

	$task->{connection} = 'chaos_dbx';
	$task->{spec} = { notebook_path => '/Shared/' . one_of(qw(echo echo wait fail)), base_parameters => { seconds => one_of('1', '10') } };
	$task->{timeout} = one_of(0.4, 0.8) if chance(0.1);
	return;
}

# Nothing makes its start unique: the query history is looked into.
sub warehouse_task
{
	my ($task) = @_;
	my $seconds = one_of('', '', 5, 20);

	$task->{connection} = 'chaos_dbx';
	$task->{spec} = { warehouse_id => 'wh1', statement => 'SELECT :n AS n' . ($seconds ? " /* wait $seconds */" : ''), parameters => { n => one_of(1, 2) } };
	$task->{spec}{statement} = 'SELECT nothing FROM nowhere' if chance(0.15);
	delete $task->{spec}{parameters} if $task->{spec}{statement} !~ /:n/;
	$task->{spec}{idempotent} = $true if chance(0.2);
	random_policy($task);
	$task->{timeout} = one_of(0.6, 1.2) if chance(0.1);
	return;
}

# Nothing makes its start unique, and nothing remembers it: the ledger knows it by its request id.
sub serving_task
{
	my ($task) = @_;

	$task->{connection} = 'chaos_dbx';
	$task->{spec} = { endpoint => 'adder', dataframe_records => [ { a => 1, b => 2 } ], client_request_id => '{{run.id}} {{task.name}} {{task.attempt}}' };
	random_policy($task);
	return;
}

# The callback tells, whether or not the request was answered; if it never
# arrived there is none.
sub webhook_task
{
	my ($task) = @_;

	$task->{connection} = 'chaos_queue';
	$task->{timeout} = 1.5;
	$task->{spec} = {
		queue => 'chaos', every => 0.1, hide_seconds => 1, poison_after => 1000, status => '$.state', succeeded => ['done'],
		request => {
			connection => 'chaos_http', method => 'POST', path => '/jobs', id => '$.id',
			body => { seconds => one_of(0.1, 5, 20), (chance(0.2) ? (fail => 'no disk') : ()), callback => { queue => 'chaos', token => '{token}' } } } };
	return;
}

our %cloud_kinds = (
	http => \&http_task,
	adf_pipeline => \&adf_task,
	databricks_job => \&job_task,
	databricks_notebook => \&notebook_task,
	databricks_sql => \&warehouse_task,
	databricks_serving => \&serving_task,
	webhook => \&webhook_task);

1;
