# Runs that somebody started in the engine by hand and that task runs adopt, of
# the kinds whose page is made from the id: Data Factory, Fabric, declarative
# pipelines.  Each is followed with its link, cancelled there or seen to its
# end, and weir starts nothing.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('adopted');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;
my $client = HTTP::Tiny->new;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub of_task { my ($run, $what) = @_; return value("SELECT $what FROM weir.task_run WHERE run_id = $run AND task_name = 'job'") }

my $sign_in = qq{'{"type": "entra_client_secret", "tenant_id": "local", "client_id": "weir-client", "client_secret": "entra_secret", "authority": "$address"}'};
my $workspace = '00000000-0000-4000-8000-000000000001';
my $item = '00000000-0000-4000-9000-000000000292';

value(qq{
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_secret('entra_secret', 'weir-secret');
	SELECT weir.create_connection('adf', 'adf', '$address/adf', $sign_in, '{"subscription_id": "s1", "resource_group": "rg", "factory": "adf-dev", "settle_seconds": 1}');
	SELECT weir.create_connection('fabric', 'fabric', '$address/fabric/v1', $sign_in, '{"workspace_id": "$workspace", "settle_seconds": 1}');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}', '{"settle_seconds": 2}')});

# What a person does who has a token.
sub token
{
	my ($resource) = @_;
	my $answer = $client->post_form("$address/local/oauth2/v2.0/token",
		{ grant_type => 'client_credentials', client_id => 'weir-client', client_secret => 'weir-secret', scope => "$resource/.default" });
	return $json->decode($answer->{content})->{access_token};
}

sub by_hand
{
	my ($path, $token, $body) = @_;
	my $answer = $client->post("$address/$path",
		{ headers => { 'Authorization' => "Bearer $token", 'Content-Type' => 'application/json' }, content => $json->encode($body) });
	die "$path: $answer->{status} $answer->{content}" if !$answer->{success};
	return $answer;
}

sub declare { my ($fails) = @_; return $cloud->call('POST', 'declarative', { pipeline_id => 'mine', flows => [ { name => 'main.lake.mine', rows => 7 } ], fails => $fails }) }

my $factory = 'subscriptions/s1/resourceGroups/rg/providers/Microsoft.DataFactory/factories/adf-dev';

sub fabric_case
{
	my ($type, $page) = @_;
	return {
		kind => 'fabric_item', connection => 'fabric', operation => 'fabric.run',
		spec => { item => $item, job_type => $type, parameters => { fail => 'not this one' } },
		begin => sub {
			my $answer = by_hand("fabric/v1/workspaces/$workspace/items/$item/jobs/$type/instances", token('https://api.fabric.microsoft.com'), {});
			return ($answer->{headers}{location} =~ m{/([^/]+)$})[0];
		},
		endless => { task_key => $type },
		stopped => sub { my ($id) = @_; return (grep { $_->{id} eq $id } @{ $cloud->runs->{fabric} })[0]{status} eq 'Cancelled' },
		page => $page,
	};
}

my %case = (
	adf_pipeline => {
		kind => 'adf_pipeline', connection => 'adf', operation => 'adf.createRun',
		spec => { pipeline => 'copy_flights', parameters => { limit => 5 } },
		fail => sub { $cloud->add_fault(fault => 'copy_fails', pipeline => 'copy_flights') },
		begin => sub {
			my $answer = by_hand("adf/$factory/pipelines/copy_flights/createRun?api-version=2018-06-01", token('https://management.azure.com'), { row_audit_id => 292, limit => 5 });
			return $json->decode($answer->{content})->{runId};
		},
		endless => { pipeline => 'copy_flights' },
		stopped => sub { my ($id) = @_; return (grep { $_->{run_id} eq $id } @{ $cloud->runs->{adf} })[0]{status} eq 'Cancelled' },
		page => sub { return "https://adf.azure.com/en/monitoring/pipelineruns/$_[0]?factory=" . ("/$factory" =~ s{/}{%2F}gr) },
	},
	Pipeline => fabric_case('Pipeline', sub { return "https://app.fabric.microsoft.com/workloads/data-pipeline/monitoring/workspaces/$workspace/pipelines/$item/$_[0]" }),
	RunNotebook => fabric_case('RunNotebook', sub { return "https://app.fabric.microsoft.com/groups/$workspace/synapsenotebooks/$item" }),
	databricks_pipeline => {
		kind => 'databricks_pipeline', connection => 'dbx', operation => 'databricks.pipeline-start',
		spec => { pipeline_id => 'mine' },
		fail => sub { declare(1) },
		mend => sub { declare(0) },
		begin => sub {
			return $json->decode(by_hand('dbx/api/2.0/pipelines/mine/updates', 'dapi-local', {})->{content})->{update_id};
		},
		endless => { pipeline_id => 'mine' },
		stopped => sub { my ($id) = @_; return (grep { $_->{update_id} eq $id } @{ $cloud->call('GET', 'declarative')->{mine} })[0]{state} eq 'CANCELED' },
		page => sub { return "$address/dbx/#joblist/pipelines/mine/updates/$_[0]" },
	});

foreach my $name (sort keys %case)
{
	my $case = $case{$name};
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => [ { name => 'job', map { $_ => $case->{$_} } ('kind', 'connection', 'spec') } ] })) . ')');
	$case->{fail}->() if defined $case->{fail};
	my $run = weir_trigger($node, $name);
	is(wait_for_run($node, $run), 'failed', "$name: what weir started fails");
	my $own = of_task($run, 'external_run_id');
	is(of_task($run, 'external_url'), $case->{page}->($own), "$name: and has its link");

	# one that goes on
	$case->{mend}->() if defined $case->{mend};
	$cloud->add_fault(fault => 'never_ends', %{ $case->{endless} }, times => undef);
	my $id = $case->{begin}->();
	isnt($id, $own, "$name: another one, started by hand");
	my $begun = $cloud->started($case->{operation});
	value('SELECT weir.adopt(' . of_task($run, 'task_run_id') . ", '$id', 'started by hand')");
	wait_until($node, "$name: it has its link while it goes on", "SELECT external_url = " . literal($case->{page}->($id))
		. " AND external_run_id = '$id' AND status = 'running' FROM weir.task_run WHERE run_id = $run AND task_name = 'job' AND attempt_no = 2");
	value("SELECT weir.cancel($run)");
	is(wait_for_run($node, $run), 'cancelled', "$name: it can be cancelled");
	ok($case->{stopped}->($id), "$name: and is cancelled there");
	is(of_task($run, 'external_url'), $case->{page}->($id), "$name: the link stays");
	is($cloud->started($case->{operation}), $begun, "$name: weir has started nothing");
	$cloud->clear_faults;

	# one that ends
	$id = $case->{begin}->();
	$begun = $cloud->started($case->{operation});
	value('SELECT weir.adopt(' . of_task($run, 'task_run_id') . ", '$id')");
	wait_until($node, "$name: the run has gone on", "SELECT repair_no = 2 FROM weir.run WHERE run_id = $run");
	is(wait_for_run($node, $run), 'succeeded', "$name: one that ends well");
	is(of_task($run, 'external_run_id'), $id, "$name: the log names it");
	is(of_task($run, 'external_url'), $case->{page}->($id), "$name: with its link");
	is($cloud->started($case->{operation}), $begun, "$name: weir has started nothing for this one either");
	is(value("SELECT string_agg(status || ' ' || (external_run_id = '$id'), ', ' ORDER BY attempt_no) FROM weir.attempt WHERE run_id = $run"),
		'failed false, cancelled false, succeeded true', "$name: an attempt for each");
	$cloud->clear_faults;
}
is(value("SELECT rows_written FROM weir.task_run WHERE kind = 'adf_pipeline'"), '5', 'what it copied is counted');

# --- an item of a list: it follows what was started by hand, the other one that failed starts anew
value("SELECT weir.create_pipeline('items', " . literal($json->encode({ tasks => [ { name => 'each', kind => 'for_each', spec => { items => [ 1, 1, 1 ], concurrency => 1,
	task => { kind => 'adf_pipeline', connection => 'adf', spec => { pipeline => 'wait', parameters => { seconds => '{{item}}' } } } } } ] })) . ')');
sub item { my ($run, $no, $what) = @_; return value("SELECT $what FROM weir.task_run WHERE run_id = $run AND item_no = $no") }
$cloud->add_fault(operation => 'adf.createRun', fault => 'status', status => 400, times => 2);
my $list = weir_trigger($node, 'items');
is(wait_for_run($node, $list), 'failed', 'items: two of three fail');
is(value("SELECT string_agg(status, ' ' ORDER BY item_no) FROM weir.task_run WHERE run_id = $list AND item_no > 0"), 'failed failed succeeded', 'items: the first two');
my $token = token('https://management.azure.com');
sub in_factory { return by_hand("adf/$factory/$_[0]?api-version=2018-06-01", $token, $_[1]) }
my $adopted = $json->decode(in_factory('pipelines/wait/createRun', { seconds => 1 })->{content})->{runId};
my $begun_before = $cloud->started('adf.createRun');
value('SELECT weir.adopt(' . item($list, 2, 'task_run_id') . ", '$adopted', 'loaded by hand')");
wait_until($node, 'items: the run has gone on', "SELECT repair_no = 1 FROM weir.run WHERE run_id = $list");
is(wait_for_run($node, $list), 'succeeded', 'items: the run succeeds');
is(item($list, 2, 'external_run_id'), $adopted, 'items: the second followed what was there');
is(value("SELECT string_agg(attempt_no::text, ' ' ORDER BY item_no) FROM weir.task_run WHERE run_id = $list AND item_no > 0"), '2 2 1', 'items: what succeeded has not gone again');
is($cloud->started('adf.createRun') - $begun_before, 1, 'items: weir has started the first one only');
$cloud->clear_faults;

# --- so many of a factory that they are asked for by a list; some end by themselves, some there, some here
my @crowd = map { "crowd_$_" } 1 .. 14;
value("SELECT weir.create_pipeline('$_', " . literal($json->encode({ tasks => [ { name => 'job', kind => 'adf_pipeline', connection => 'adf',
	spec => { pipeline => 'wait', parameters => { seconds => 1 } } } ] })) . ')') foreach @crowd;
$cloud->add_fault(operation => 'adf.createRun', fault => 'status', status => 400, times => scalar @crowd);
my %run = map { $_ => weir_trigger($node, $_) } @crowd;
is(join(' ', map { wait_for_run($node, $run{$_}) } @crowd), join(' ', ('failed') x @crowd), 'many: what weir wants to start is refused');
my @short = @crowd[ 0 .. 3 ];
my @stopped_there = @crowd[ 4 .. 8 ];
my @stopped_here = @crowd[ 9 .. 13 ];
my @long = (@stopped_there, @stopped_here);
my %id = map { my $seconds = $_->[1]; map { $_ => $json->decode(in_factory('pipelines/wait/createRun', { seconds => $seconds })->{content})->{runId} } @{ $_->[0] } }
  [ \@short, 30 ], [ \@long, 36000 ];
my %is_long = map { $id{$_} => 1 } @long;
my $begun = $cloud->started('adf.createRun');
value('SELECT ' . join(', ', map { 'weir.adopt(' . of_task($run{$_}, 'task_run_id') . ", '$id{$_}')" } @crowd));

# How soon lists tell of all that go on is a matter of how fast this machine is; that nothing else is asked for then is not.
my @singly;
foreach (1 .. 20)
{
	my $since = $cloud->ledger(limit => 1)->[0]{seq};
	my $lists = $cloud->wait(operation => 'adf.queryRuns', count => 4, since => $since, timeout_ms => 1000 * $PostgreSQL::Test::Utils::timeout_default);
	die 'no lists are asked for' if @$lists < 4;
	@singly = grep { $_->{seq} <= $lists->[3]{seq} && $is_long{ $_->{run_id} // '' } } @{ $cloud->ledger(since => $since) };
	last unless @singly;
}
is(scalar @singly, 0, 'many: those that go on are asked for by lists, and nothing else');
is(value('SELECT count(*) FROM weir.task_run WHERE external_run_id IN (' . join(', ', map { literal($id{$_}) } @long) . ") AND status = 'running' AND external_url LIKE '%/pipelineruns/' || external_run_id || '?%'"),
	scalar @long, 'many: each goes on, with its link');
is(join(' ', map { wait_for_run($node, $run{$_}) } @short), join(' ', ('succeeded') x @short), 'many: those that end well have succeeded');
in_factory("pipelineruns/$id{$_}/cancel", {}) foreach @stopped_there;
is(join(' ', map { wait_for_run($node, $run{$_}) } @stopped_there), join(' ', ('cancelled') x @stopped_there), 'many: so are those that somebody cancelled there');
value('SELECT ' . join(', ', map { "weir.cancel($run{$_})" } @stopped_here));
is(join(' ', map { wait_for_run($node, $run{$_}) } @stopped_here), join(' ', ('cancelled') x @stopped_here), 'many: the others are cancelled here');
is(join(' ', map { my $id = $id{$_}; (grep { $_->{run_id} eq $id } @{ $cloud->runs->{adf} })[0]{status} } @short, @long),
	join(' ', ('Succeeded') x @short, ('Cancelled') x @long), 'many: in the factory, too');
is(value("SELECT string_agg(DISTINCT external_run_id, ' ' ORDER BY external_run_id) FROM weir.task_run WHERE run_id IN (" . join(', ', values %run) . ')'),
	join(' ', sort values %id), 'many: each followed its own');
is($cloud->started('adf.createRun'), $begun, 'many: weir has started nothing');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), 0, 'no attempt is left over');
$node->stop;
done_testing();
