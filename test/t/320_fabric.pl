# Jobs of Microsoft Fabric: every item type, parameters, activities, the wait
# that Retry-After asks for, statuses that are no success, cancels, answers
# that are lost or name no instance, crashes, and long-running operations.
# The cloud's ledger says how many jobs were really started.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('fabric');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub id { return sprintf('00000000-0000-4000-8000-%012d', $_[0]) }

my $workspace = id(1);
my %item = (Pipeline => id(10), RunNotebook => id(11), sparkjob => id(12), TableMaintenance => id(13), Refresh => id(14));

value(qq{
	SELECT weir.create_secret('entra_secret', 'weir-secret');
	SELECT weir.create_connection('fabric', 'fabric', '$address/fabric/v1', '{"type": "entra_client_secret", "tenant_id": "local",
		"client_id": "weir-client", "client_secret": "entra_secret", "authority": "$address"}',
		'{"workspace_id": "$workspace", "settle_seconds": 1}')});

sub job
{
	my ($type, %more) = @_;
	my %task = map { $_ => delete $more{$_} } grep { exists $more{$_} } ('retry', 'timeout', 'depends_on');
	return { name => 'job', kind => 'fabric_item', connection => 'fabric', spec => { item => $item{$type}, job_type => $type, %more }, %task };
}

sub start
{
	my ($name, @tasks) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => \@tasks })) . ')');
	return weir_trigger($node, $name);
}
sub of_task { my ($run, $what) = @_; return value("SELECT $what FROM weir.task_run WHERE run_id = $run AND task_name = 'job'") }
sub attempts { return value("SELECT string_agg(status || coalesce(' ' || error_code, ''), ', ' ORDER BY attempt_no) FROM weir.attempt WHERE run_id = $_[0]") }
sub instance
{
	my ($run) = @_;
	wait_until($node, "run $run has an instance", "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run AND task_name = 'job'");
	return of_task($run, 'external_run_id');
}
sub started { my (%query) = @_; return $cloud->started('fabric.run', %query) }

# --- every type
my %run;
$run{$_} = start("all_$_", job($_, $_ eq 'sparkjob' ? (execution_data => { commandLineArguments => 'x' }) : ($_ eq 'TableMaintenance' ? () : (parameters => { seconds => 1, note => 'x' })))) foreach sort keys %item;
foreach my $type (sort keys %item)
{
	is(wait_for_run($node, $run{$type}), 'succeeded', "$type: succeeds");
	is(of_task($run{$type}, "concat_ws(' ', output->>'status', output->>'jobType', output->>'itemId', output->>'id' = external_run_id)"),
		($type eq 'Pipeline' ? 'Completed' : 'Completed') . " $type $item{$type} t", "$type: output");
	is(started(job_id => $item{$type}), 1, "$type: started once");
}
like(of_task($run{Pipeline}, 'external_url'), qr{^https://app\.fabric\.microsoft\.com/workloads/data-pipeline/monitoring/workspaces/\S+/pipelines/$item{Pipeline}/}, 'Pipeline: link to the run');
like(of_task($run{RunNotebook}, 'external_url'), qr{/synapsenotebooks/$item{RunNotebook}$}, 'RunNotebook: link to the item');
is(of_task($run{Pipeline}, "rows_read || ' ' || rows_written || ' ' || (output->>'rowsCopied')"), '4334 4330 4330', 'Pipeline: rows of its activities');
is(value("SELECT string_agg(a.activity || ' ' || a.status || coalesce(' ' || a.rows_copied, ''), ', ' ORDER BY a.activity) FROM weir.activity a WHERE a.run_id = $run{Pipeline}"),
	'job/Copy flights succeeded 4330, job/Lookup succeeded', 'Pipeline: activities in the log');

# the least wait, and not a look more
my @starts = @{ $cloud->ledger(operation => 'fabric.run', job_id => $item{Refresh}) };
my @looks = @{ $cloud->ledger(operation => 'fabric.get', job_id => $item{Refresh}) };
cmp_ok($looks[0]{time} - $starts[0]{time}, '>=', 1, 'Retry-After is the least wait before the first look');

# --- failures
my $failed = start('failing', job('RunNotebook', parameters => { fail => 'cell 3 raised ValueError' }));
is(wait_for_run($node, $failed), 'failed', 'a notebook fails');
is(of_task($failed, 'error_message'), 'cell 3 raised ValueError', 'with its failureReason');
is(attempts($failed), 'failed JobInstanceStatusFailed', 'and code');
my $copy = start('failing_copy', job('Pipeline', parameters => { fail => 'no such file' }));
is(wait_for_run($node, $copy), 'failed', 'a pipeline fails');
is(attempts($copy), 'failed 2200', 'with the code of its activity');
my $wrong = start('wrong', job('Pipeline', item => $item{sparkjob}));
is(wait_for_run($node, $wrong), 'failed', 'a job type the item does not have');
is(attempts($wrong), 'failed InvalidJobType', 'is what Fabric says');
my $gone = start('gone', job('Pipeline', item => id(99)));
is(wait_for_run($node, $gone), 'failed', 'an item that is not there');
is(attempts($gone), 'failed ItemNotFound', 'is found out before anything starts');

# --- Deduped is no success
$cloud->add_fault(fault => 'never_ends', task_key => 'TableMaintenance');
my $busy = start('busy', job('TableMaintenance'));
my $first = instance($busy);
my $deduped = start('deduped', job('TableMaintenance'));
is(wait_for_run($node, $deduped), 'failed', 'a job that was skipped because another one runs');
is(attempts($deduped), 'failed Deduped', 'is not taken for done');

# --- cancel
is(value("SELECT weir.cancel($busy)"), 't', 'cancel');
is(wait_for_run($node, $busy), 'cancelled', 'the run is cancelled');
my ($seen) = grep { $_->{id} eq $first } @{ $cloud->runs->{fabric} };
is($seen->{status}, 'Cancelled', 'and so is the job');
my $ended = start('ended', job('Refresh', parameters => { seconds => 1 }));
instance($ended);
$cloud->add_fault(operation => 'fabric.cancel', fault => 'status', status => 400, body => { errorCode => 'JobAlreadyCompleted', message => 'done' });
value("SELECT weir.cancel($ended)");
is(wait_for_run($node, $ended), 'succeeded', 'a cancel that comes too late');

# --- answers that are lost or name nothing
foreach my $case ([ 'reset_after', fault => 'reset_after' ], [ 'half', fault => 'status', status => 502, do_work => JSON::PP::true ],
	[ 'html', fault => 'html', do_work => JSON::PP::true ])
{
	my ($name, @fault) = @$case;
	my $before = started();
	$cloud->add_fault(operation => 'fabric.run', @fault);
	my $lost = start("lost_$name", job('RunNotebook', parameters => { seconds => 2 }));
	is(wait_for_run($node, $lost), 'succeeded', "$name: the job is found in the list");
	is(started() - $before, 1, "$name: and was started once");
}
my $before = started();
$cloud->add_fault(operation => 'fabric.run', fault => 'reset_before');
my $unsent = start('unsent', job('RunNotebook', parameters => { seconds => 1 }));
is(wait_for_run($node, $unsent), 'succeeded', 'a start that did not arrive is sent again');
is(started() - $before, 1, 'and makes one job');
is(attempts($unsent), 'succeeded', 'in one attempt');
foreach my $way ('none', 'header')
{
	$cloud->config(fabric_location => $way);
	my $nameless = start("location_$way", job('sparkjob'));
	is(wait_for_run($node, $nameless), 'succeeded', "Location without an id ($way)");
}
$cloud->config(fabric_location => 'id', page_size => 2);

# two of them: one begins after the other, so each finds its own
$before = started();
$cloud->add_fault(operation => 'fabric.run', fault => 'reset_after', times => 2);
my @twins = map { start("twin_$_", job('Pipeline', parameters => { seconds => 2 })) } (1, 2);
is(wait_for_run($node, $_), 'succeeded', 'two lost answers at once') foreach @twins;
isnt(of_task($twins[0], 'external_run_id'), of_task($twins[1], 'external_run_id'), 'each is found');
is(started() - $before, 2, 'and nothing begins beside them');
$cloud->config(page_size => 100);

# somebody starts one by hand meanwhile, and nobody knows which is whose
sub by_hand
{
	my ($number) = @_;
	my $client = HTTP::Tiny->new;
	my $token = $client->post_form("$address/local/oauth2/v2.0/token", { grant_type => 'client_credentials', client_id => 'weir-client',
		client_secret => 'weir-secret', scope => 'https://api.fabric.microsoft.com/.default' })->{content};
	return $client->post("$address/fabric/v1/workspaces/$workspace/items/$number/jobs/Pipeline/instances",
		{ headers => { Authorization => 'Bearer ' . $json->decode($token)->{access_token} } })->{success};
}
my $shared = '00000000-0000-4000-9000-000000000320';
$cloud->add_fault(operation => 'fabric.run', fault => 'reset_after');
my $look = $cloud->add_fault(operation => 'fabric.list', fault => 'hold', after => 1, job_id => $shared)->{faults}[0]{id};
value("SELECT weir.create_pipeline('beside', " . literal($json->encode({ tasks => [ { %{ job('Pipeline', item => $shared) }, on_uncertain => 'ask' } ] })) . ')');
my $beside = weir_trigger($node, 'beside');
ok($cloud->wait_struck($look), 'the answer to a start is lost, and the list is read');
ok(by_hand($shared), 'somebody starts another job of the item');
$cloud->call('DELETE', "faults/$look");
wait_until($node, 'it is uncertain', "SELECT count(*) = 1 FROM weir.attempts WHERE run_id = $beside AND status = 'uncertain'");
like(value("SELECT kind_state->'uncertain'->>'message' FROM weir.attempt WHERE run_id = $beside"),
	qr/several jobs of this item were started since: \S+, \S+; look/, 'no guess: a person is told what to look at');
$before = started();
$cloud->add_fault(operation => 'fabric.run', fault => 'reset_before');
value("SELECT weir.resolve(task_run_id, 'send_again', 'both are of somebody else') FROM weir.task_run WHERE run_id = $beside");
is(wait_for_run($node, $beside), 'succeeded', 'and decides');
is(started() - $before, 1, 'what is there by then is taken for nobody');

# --- weather
$cloud->add_fault(operation => 'fabric.list', fault => 'status', status => 429, retry_after => 1);
$cloud->add_fault(operation => 'fabric.run', fault => 'status', status => 430, body => { errorCode => 'TooManyRequestsForCapacity', message => 'busy' }, retry_after => 1, job_id => $item{Refresh});
$cloud->add_fault(operation => 'fabric.get', fault => $_, job_id => $item{Refresh}) foreach ('half_body', 'html', 'reset_after', 'not_json');
$cloud->add_fault(operation => 'fabric.get', fault => 'huge', mb => 10, job_id => $item{Refresh});
$before = started();
my $weather = start('weather', job('Refresh', parameters => { seconds => 1 }));
is(wait_for_run($node, $weather), 'succeeded', 'bad weather passes');
is(started() - $before, 1, 'and starts nothing twice');
is(scalar(grep { $_->{struck} < 1 } @{ $cloud->call('GET', 'faults')->{faults} }), 0, 'all of it struck');
$cloud->clear_faults;
$cloud->config(revoke_tokens => JSON::PP::true);
is(wait_for_run($node, start('revoked', job('Refresh'))), 'succeeded', 'a token that is no longer good is replaced');
$cloud->add_fault(operation => 'fabric.activities', fault => 'status', status => 403, times => undef);
my $details = start('no_details', job('Pipeline'));
is(wait_for_run($node, $details), 'succeeded', 'activities that may not be read cost nothing but details');
$cloud->clear_faults;

# --- operations
sub refresh
{
	my (%body) = @_;
	return { name => 'job', kind => 'fabric_item', connection => 'fabric', spec => { call => { path => '/workspaces/' . id(1) . '/sqlEndpoints/' . id(20) . '/refreshMetadata', body => \%body } } };
}
my $operation = start('operation', refresh(seconds => 1));
is(wait_for_run($node, $operation), 'succeeded', 'a long-running operation');
is(of_task($operation, "output->'result'->'value'->0->>'tableName'"), 'flights', 'and its result');
my $bad = start('operation_fails', refresh(fail => 'endpoint is paused'));
is(wait_for_run($node, $bad), 'failed', 'an operation that fails');
is(of_task($bad, 'error_message') . ', ' . attempts($bad), 'endpoint is paused, failed RefreshFailed', 'says why');
$cloud->add_fault(operation => 'fabric.refresh', fault => 'reset_after');
my $lost = start('operation_lost', refresh(seconds => 1));
is(wait_for_run($node, $lost), 'failed', 'an operation nobody can look for');
is(attempts($lost), 'failed outcome_unknown', 'is not sent twice');

# --- kill -9 at each place
sub kill_conductor { return kill9_backend($node, 'weir conductor') }
$before = started();
my $hold = $cloud->add_fault(operation => 'fabric.list', fault => 'hold')->{faults}[0]{id};
my $killed = start('killed_list', job('RunNotebook', parameters => { seconds => 1 }));
$cloud->wait(operation => 'fabric.list', fault => 'hold', answered => 'false');
kill_conductor();
$cloud->call('DELETE', "faults/$hold");
is(wait_for_run($node, $killed), 'succeeded', 'killed while it lists');
is(started() - $before, 1, 'one job');
$before = started();
$hold = $cloud->add_fault(operation => 'fabric.run', fault => 'delay', delay_ms => 600000)->{faults}[0]{id};
$killed = start('killed_start', job('RunNotebook', parameters => { seconds => 2 }));
$cloud->wait(operation => 'fabric.run', fault => 'delay', started => 'true');
kill_conductor();
is(wait_for_run($node, $killed), 'succeeded', 'killed before the answer to the start');
is(started() - $before, 1, 'one job');
is(attempts($killed), 'succeeded', 'one attempt');
$before = started();
$killed = start('killed_poll', job('RunNotebook', parameters => { seconds => 20 }));
my $instance = instance($killed);
kill_conductor();
is(wait_for_run($node, $killed), 'succeeded', 'killed while it runs');
is(of_task($killed, 'external_run_id') . ' ' . (started() - $before), "$instance 1", 'the same job');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), 0, 'no attempt is left over');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|weir-secret/, 'nothing died, and the log has no secret');
$node->stop;
done_testing();
