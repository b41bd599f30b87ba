# Whose run is it?  Jobs of Fabric items and updates of declarative pipelines
# bear no mark of ours: after a lost answer or a crash they are told apart by
# where and when they began.  Many attempts at one item, answers lost before and
# after the start arrived, the conductor killed while all are about to begin,
# lists that are late, and runs of other attempts and other hands: each run is
# followed by one attempt, nothing is lost and nothing begins twice.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $false = JSON::PP::false;
my $true = JSON::PP::true;
my $node = weir_node('whose', conf => "weir.cancel_grace = '1s'\n");
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub own { return sprintf('00000000-0000-4000-9000-%012d', 326000 + $_[0]) }

value(qq{
	SELECT weir.create_secret('entra_secret', 'weir-secret');
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_connection('fabric', 'fabric', '$address/fabric/v1', '{"type": "entra_client_secret", "tenant_id": "local",
		"client_id": "weir-client", "client_secret": "entra_secret", "authority": "$address"}',
		'{"workspace_id": "00000000-0000-4000-8000-000000000001", "settle_seconds": 1}');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}', '{"settle_seconds": 1}')});

# --- what runs, and where ------------------------------------------------------

my %fabric = (works => 'fabric.run', by => 'job_id', id => 'run_id');
my %update = (works => 'databricks.pipeline-start', by => 'pipeline_id', id => 'update_id');

sub notebook
{
	my ($item, %parameters) = @_;
	return (kind => 'fabric_item', connection => 'fabric', spec => { item => $item, job_type => 'RunNotebook', parameters => \%parameters });
}

sub refresh
{
	my ($pipeline, %spec) = @_;
	return (kind => 'databricks_pipeline', connection => 'dbx', spec => { pipeline_id => $pipeline, %spec });
}

sub start
{
	my ($name, %task) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => [ { name => 'it', %task } ] })) . ')');
	return weir_trigger($node, $name);
}

sub start_many
{
	my ($name, $n, %task) = @_;
	return start($name, kind => 'for_each', spec => { items => [ 1 .. $n ], concurrency => $n, task => \%task });
}

sub id_of { return value("SELECT external_run_id FROM weir.task_run WHERE run_id = $_[0] AND task_name = 'it'") }
sub follows
{
	my ($run) = @_;
	wait_until($node, "run $run follows something", "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run AND task_name = 'it'");
	return id_of($run);
}
sub end_of { return value("SELECT string_agg(status || coalesce(' ' || error_code, ''), ', ' ORDER BY attempt_no) FROM weir.attempt WHERE run_id = $_[0]") }

# The ids of what began there, as the cloud has them.
sub begun
{
	my ($what, $place) = @_;
	return map { $_->{ $what->{id} } } @{ $cloud->ledger(operation => $what->{works}, $what->{by} => $place, started => 'true') };
}

# All runs of a place are those of the attempts of a run, each of one.
sub each_has_its_own
{
	my ($name, $run, $what, $place, $n) = @_;
	my $ids = join(' ', sort(begun($what, $place)));
	is(value("SELECT count(DISTINCT external_run_id) || ' ' || string_agg(external_run_id, ' ' ORDER BY external_run_id COLLATE \"C\") FROM weir.attempt WHERE run_id = $run AND external_run_id IS NOT NULL"),
		"$n $ids", "$name: each follows a run of its own, and there are no others");
	is(value("SELECT string_agg(DISTINCT a.attempt_no || ' ' || a.status, ', ') FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE a.run_id = $run AND t.item_no > 0"),
		'1 succeeded', "$name: in one attempt each");
	return;
}

sub fault { my (%fault) = @_; return $cloud->add_fault(%fault)->{faults}[0]{id} }
sub end_fault { return $cloud->call('DELETE', "faults/$_[0]") }

# --- one item, many attempts -----------------------------------------------------

foreach my $case ([ 'jobs', 10, \%fabric, own(1), sub { return notebook(own(1), n => '{{item}}') } ],
	[ 'updates', 5, \%update, 'many', sub { return refresh('many', parameters => { n => '{{item}}' }) } ])
{
	my ($name, $n, $what, $place, $task) = @$case;
	$cloud->call('POST', 'declarative', { pipeline_id => $place, flows => [ { name => 'm.s.t', rows => 1 } ] }) if $what == \%update;
	# The first start arrives and is not answered; if others were sent meanwhile, they would not arrive.
	fault(operation => $what->{works}, fault => 'delay', delay_ms => 600000);
	fault(operation => $what->{works}, fault => 'hold', do_work => $false, times => undef);
	my $run = start_many("killed_$name", $n, $task->());
	$cloud->wait(operation => $what->{works}, $what->{by} => $place, fault => 'delay', started => 'true');
	wait_until($node, 'all are about to begin', "SELECT count(*) = $n FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE a.run_id = $run AND t.item_no > 0");
	kill9_backend($node, 'weir conductor');
	$cloud->clear_faults;
	is(wait_for_run($node, $run), 'succeeded', "$name: the conductor is killed when one has begun and the others are about to");
	each_has_its_own($name, $run, $what, $place, $n);
}

foreach my $case ([ 'lost_jobs', 6, \%fabric, own(2), sub { return notebook(own(2), n => '{{item}}') } ],
	[ 'lost_updates', 4, \%update, 'lost', sub { return refresh('lost', parameters => { n => '{{item}}' }) } ])
{
	my ($name, $n, $what, $place, $task) = @$case;
	$cloud->call('POST', 'declarative', { pipeline_id => $place, flows => [ { name => 'm.s.t', rows => 1 } ] }) if $what == \%update;
	fault(operation => $what->{works}, fault => $_, times => 2) foreach 'reset_after', 'reset_before';
	my $run = start_many($name, $n, $task->());
	is(wait_for_run($node, $run), 'succeeded', "$name: answers are lost, of starts that arrived and of starts that did not");
	is(scalar(grep { $_->{struck} < 2 } @{ $cloud->call('GET', 'faults')->{faults} }), 0, "$name: all of it struck");
	$cloud->clear_faults;
	each_has_its_own($name, $run, $what, $place, $n);
}

# --- the run of another attempt shows late ---------------------------------------

foreach my $ended (0, 1)
{
	my $item = own(3 + $ended);
	my $name = $ended ? 'ended' : 'running';
	$cloud->config(fabric_listed => $false);
	my $first = start("first_$name", notebook($item, seconds => 36000));
	my $its = follows($first);
	my $held = fault(operation => 'fabric.run', fault => 'hold', do_work => $false, job_id => $item);
	my $second = start("second_$name", notebook($item));
	ok($cloud->wait_struck($held), "$name: another attempt starts, and its start does not arrive");
	value("SELECT weir.cancel($first)") if $ended;
	is(wait_for_run($node, $first), 'cancelled', "$name: the first one is cancelled") if $ended;
	$cloud->config(fabric_listed => $true);
	end_fault($held);
	is(wait_for_run($node, $second), 'succeeded', "$name: what the first one started is in the list by now");
	isnt(id_of($second), $its, "$name: and is not taken for the second one's");
	is(join(' ', begun(\%fabric, $item)), $its . ' ' . id_of($second), "$name: which starts its own");
	next if $ended;
	value("SELECT weir.cancel($first)");
	is(wait_for_run($node, $first), 'cancelled', "$name: the first one went on");
}

# --- a start arrives after its attempt was given up ------------------------------

my $item = own(5);
my $late = fault(operation => 'fabric.run', fault => 'hold', job_id => $item);
my $given_up = start('given_up', notebook($item));
ok($cloud->wait_struck($late), 'a start is under way');
my $next = start('next', notebook($item));
wait_until($node, 'the next one is about to begin', "SELECT count(*) = 1 FROM weir.attempt WHERE run_id = $next");
is($cloud->requests('fabric.list', job_id => $item), 1, 'the next attempt does not look before it is known what came of it');
my $lost = fault(operation => 'fabric.run', fault => 'hold', do_work => $false, job_id => $item);
value("SELECT weir.cancel($given_up)");
isnt(wait_for_run($node, $given_up), 'succeeded', 'it is given up');
ok($cloud->wait_struck($lost), 'now the next attempt starts');
end_fault($late);
$cloud->wait(operation => 'fabric.run', job_id => $item, started => 'true');
end_fault($lost);
is(wait_for_run($node, $next), 'failed', 'there is a job, which may be of either');
is(end_of($next), 'failed outcome_unknown', 'and nobody guesses');
like(value("SELECT error_message FROM weir.task_run WHERE run_id = $next"), qr/job \S+ of this item, which was started since, may be of another attempt whose answer was lost/, 'a person is told what to look at');
is(scalar(begun(\%fabric, $item)), 1, 'nothing begins beside it');
is(wait_for_run($node, start('after', notebook($item))), 'succeeded', 'the one after that');
is(scalar(begun(\%fabric, $item)), 2, 'has a job of its own');

# --- somebody else's update, with other parameters -------------------------------

$cloud->call('POST', 'declarative', { pipeline_id => 'days', flows => [ { name => 'm.s.t', rows => 1 } ] });
$lost = fault(operation => 'databricks.pipeline-start', fault => 'hold', do_work => $false);
my $day = start('day', refresh('days', parameters => { day => 2 }));
ok($cloud->wait_struck($lost), 'an update is started, and the start does not arrive');
my $waits = start('waits', refresh('days', parameters => { day => 3 }));
wait_until($node, 'why names the attempt that begins', "SELECT detail FROM weir.why($waits) WHERE task = 'it'",
	expected => 'attempt 1 of kind databricks_pipeline is being started, and waits for attempt 1 of task run '
	  . value("SELECT task_run_id FROM weir.task_run WHERE run_id = $day") . ', which begins at the same place: whose run is whose could not be told otherwise');
value("SELECT weir.cancel($waits)");
is(wait_for_run($node, $waits), 'cancelled', 'one that waits for its turn can be cancelled');
my $answer = HTTP::Tiny->new->post("$address/dbx/api/2.0/pipelines/days/updates",
	{ headers => { Authorization => 'Bearer dapi-local' }, content => $json->encode({ parameters => { day => '1' }, cause => 'API_CALL' }) });
ok($answer->{success}, 'somebody else starts one, for another day');
my $theirs = $json->decode($answer->{content})->{update_id};
end_fault($lost);
is(wait_for_run($node, $day), 'succeeded', 'the task');
is(join(' ', begun(\%update, 'days')), "$theirs " . id_of($day), 'follows its own');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), 0, 'no attempt is left over');
is(value('SELECT count(*) FROM (SELECT FROM weir.attempt WHERE external_run_id IS NOT NULL GROUP BY external_run_id HAVING count(*) > 1) x'), 0, 'no run has two attempts');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|weir-secret/, 'nothing died, and the log has no secret');
$node->stop;
done_testing();
