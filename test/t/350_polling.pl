# Many runs in flight are asked for by lists of them; a run that a list does
# not have is asked for by itself, whatever the reason.  All by what the
# services were asked, not by the clock.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('polling');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

value(qq{
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_secret('entra_secret', 'weir-secret');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}', '{"settle_seconds": 2}');
	SELECT weir.create_connection('adf', 'adf', '$address/adf', '{"type": "entra_client_secret", "tenant_id": "local",
		"client_id": "weir-client", "client_secret": "entra_secret", "authority": "$address"}',
		'{"subscription_id": "s1", "resource_group": "rg", "factory": "f", "settle_seconds": 1}')});

my %ways = (
	databricks => { kind => 'databricks_job', connection => 'dbx', list => 'databricks.list', get => 'databricks.get', start => 'databricks.run-now',
		spec => sub { return { job_id => 102, job_parameters => { seconds => $_[0] } } } },
	one_time => { kind => 'databricks_notebook', connection => 'dbx', list => 'databricks.list', get => 'databricks.get', start => 'databricks.submit',
		spec => sub { $cloud->call('POST', 'notebooks', { path => "/wait$_[0]", action => 'wait', seconds => $_[0] + 0 }); return { notebook_path => "/wait$_[0]" } } },
	adf => { kind => 'adf_pipeline', connection => 'adf', list => 'adf.queryRuns', get => 'adf.getRun', start => 'adf.createRun',
		spec => sub { return { pipeline => 'wait', parameters => { seconds => "$_[0]" } } } });

# A pipeline of so many tasks whose runs take so many seconds (at the cloud's speed)
sub many
{
	my ($name, $how, $n, $seconds) = @_;
	my $way = $ways{$how};
	my $spec = $way->{spec}->($seconds);
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => [
		map { { name => "t$_", kind => $way->{kind}, connection => $way->{connection}, spec => $spec } } (1 .. $n) ] })) . ')');
	return;
}
sub newest { my $entries = $cloud->ledger(limit => 1); return @$entries ? $entries->[0]{seq} : 0 }
sub tasks { return value("SELECT string_agg(DISTINCT status, ',') || ' ' || count(*) FROM weir.task_run WHERE run_id = $_[0]") }

foreach my $how (qw(databricks one_time adf))
{
	my $way = $ways{$how};
	$cloud->reset;
	many("lists_$how", $how, 40, 60);
	my $run = weir_trigger($node, "lists_$how");
	# once a list has told of all, lists are all that is needed
	$cloud->wait(operation => $way->{list}, count => 4, timeout_ms => 60000);
	my $since = newest();
	$cloud->wait(operation => $way->{list}, since => $since, count => 4, timeout_ms => 60000);
	my $until = newest();
	my @asked = grep { $_->{seq} <= $until } @{ $cloud->ledger(since => $since) };
	diag("$how: " . join(' ', map { $_->{operation} } @asked));
	wait_for_run($node, $run);
	diag(tasks($run), ' ', $json->encode($cloud->counts));
}
$node->stop;
done_testing();
