# The conductor is away while runs end, fail, vanish or go on in their engines:
# when it is back it asks them before it says anything, and starts nothing anew.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
# shorter than the pause between two looks at what has been going on for a day
my $node = weir_node('away', conf => "weir.cancel_grace = '20s'\n");
my %cloud = (here => weir_cloud(undef, speed => 10), gone => weir_cloud(undef, speed => 10));
my %follow = (method => 'POST', path => '/jobs', id => '$.id', error => { message => '$.error' },
	poll => { path => '/jobs/{id}', every => 0.3, status => '$.state', succeeded => ['done'], failed => ['failed'], cancelled => ['stopped'] });

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub own { return sprintf('00000000-0000-4000-9000-%012d', $_[0]) }

# For each kind: its connection; what it is asked to do so that it ends well,
# fails, or goes on for hours; what the engine is asked while it runs; what the
# log says of a run that is gone.  http and webhook cannot be cancelled here.
my %kinds = (
	databricks_job => { connection => 'dbx', ends => { job_id => 102, job_parameters => { seconds => '1' } }, fails => { job_id => 103 },
		goes_on => { job_id => 102, job_parameters => { seconds => '36000' } }, asked => 'databricks.get', started => 'databricks.run-now',
		why => qr/fail/i },
	databricks_notebook => { connection => 'dbx', ends => { notebook_path => '/Shared/echo' }, fails => { notebook_path => '/Shared/fail' },
		goes_on => { notebook_path => '/Shared/wait', base_parameters => { seconds => '36000' } }, asked => 'databricks.get', started => 'databricks.submit',
		why => qr/fail/i },
	databricks_sql => { connection => 'dbx', ends => { statement => '/* wait 1 */ SELECT 1', warehouse_id => 'wh1' },
		fails => { statement => '/* wait 1 */ SELECT * FROM nowhere', warehouse_id => 'wh1' },
		goes_on => { statement => '/* wait 36000 */ SELECT 1', warehouse_id => 'wh1' }, asked => 'databricks.statement', started => 'databricks.execute',
		why => qr/nowhere/ },
	databricks_pipeline => { connection => 'dbx', own => 1, ends => { pipeline_id => 'ends' }, fails => { pipeline_id => 'fails' }, goes_on => { pipeline_id => 'goes_on' },
		asked => 'databricks.pipeline-update', started => 'databricks.pipeline-start', why => qr/no column/ },
	adf_pipeline => { connection => 'adf', ends => { pipeline => 'wait', parameters => { seconds => 1 } }, fails => { pipeline => 'fail', parameters => { message => 'no luck' } },
		goes_on => { pipeline => 'wait', parameters => { seconds => 36000 } }, asked => 'adf.getRun', started => 'adf.createRun', why => qr/no luck/ },
	fabric_item => { connection => 'fabric', ends => { item => own(1), job_type => 'RunNotebook' }, fails => { item => own(2), job_type => 'RunNotebook', parameters => { fail => 'cell 3' } },
		goes_on => { item => own(3), job_type => 'RunNotebook', parameters => { seconds => 36000 } }, asked => 'fabric.get', started => 'fabric.run', why => qr/cell 3/ },
	http => { connection => 'api', ends => { %follow, body => { seconds => 1 } }, fails => { %follow, body => { seconds => 1, fail => 'no disk' } },
		goes_on => { %follow, body => { seconds => 36000 }, cancel => { method => 'POST', path => '/jobs/{id}/stop' } }, asked => 'http.job-get', started => 'http.job-start',
		why => qr/no disk/ },
	webhook => { connection => 'queue', own => 1, ends => { body => { seconds => 1 } }, fails => { body => { seconds => 1, fail => 'no disk' } },
		goes_on => { body => { seconds => 36000 } }, asked => 'queue.get', started => 'http.job-start', why => qr/no disk/ });

# What is asked of a webhook, and which declarative pipeline, says the name of the task alone.
sub spec
{
	my ($kind, $what, $name, $cloud) = @_;
	my %spec = %{ $kinds{$kind}{$what} };

	if ($kind eq 'webhook')
	{
		my $queue = $name =~ tr/_/-/r;
		$cloud->call('POST', 'queues', { queue => $queue, create => JSON::PP::true });
		return { queue => $queue, every => 0.3, hide_seconds => 2, status => '$.state', succeeded => ['done'], error => { message => '$.error' },
			request => { connection => $cloud == $cloud{here} ? 'here_svc' : 'gone_svc', method => 'POST', path => '/jobs', id => '$.id',
				body => { %{ $spec{body} }, callback => { queue => $queue, token => '{token}' } } } };
	}
	if ($kind eq 'databricks_pipeline')
	{
		$cloud->call('POST', 'declarative', { pipeline_id => $name, flows => [ { name => 'm.s.t', rows => 1, seconds => $what eq 'goes_on' ? 36000 : 1 } ],
			$what eq 'fails' ? (fails => 1, message => 'no column') : () });
		return { pipeline_id => $name };
	}
	return \%spec;
}

value(q{SELECT weir.create_secret('token', 'dapi-local'), weir.create_secret('entra', 'weir-secret')});
foreach my $at (sort keys %cloud)
{
	my $address = $cloud{$at}->address;
	my $auth = qq('{"type": "entra_client_secret", "tenant_id": "local", "client_id": "weir-client", "client_secret": "entra", "authority": "$address"}');
	value(qq{
		SELECT weir.create_connection('${at}_dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}', '{"settle_seconds": 1}');
		SELECT weir.create_connection('${at}_adf', 'adf', '$address/adf', $auth, '{"subscription_id": "s1", "resource_group": "rg", "factory": "adf-dev", "settle_seconds": 1}');
		SELECT weir.create_connection('${at}_fabric', 'fabric', '$address/fabric/v1', $auth, '{"workspace_id": "00000000-0000-4000-8000-000000000001", "settle_seconds": 1}');
		SELECT weir.create_connection('${at}_api', 'http', '$address/http');
		SELECT weir.create_connection('${at}_svc', 'http', '$address/http');
		SELECT weir.create_connection('${at}_queue', 'http', '$address/queue')});
}

# A pipeline with a task of every kind; what they are asked to do, in which cloud.
sub start
{
	my ($name, $what, $at, %more) = @_;
	my @kinds = grep { $name ne 'gone' || $_ ne 'webhook' } sort keys %kinds;		# whose message may always still come
	my @tasks = map { { name => $_, kind => $_, connection => "${at}_$kinds{$_}{connection}", spec => spec($_, $what, "${name}_$_", $cloud{$at}),
			retry => { max_attempts => 3, initial_delay => '100 milliseconds' }, %more } } @kinds;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => \@tasks })) . ')');
	return weir_trigger($node, $name);
}

# Nobody is told how it goes; then nobody is there to be told.
foreach my $cloud (values %cloud)
{
	$cloud->add_fault(operation => $_, fault => 'hold', times => undef) foreach map { $_->{asked} } values %kinds;
}
my %run = (ended => start('ended', 'ends', 'here'), failed => start('failed', 'fails', 'here'), gone => start('gone', 'goes_on', 'gone'),
	going => start('going', 'goes_on', 'here'), late => start('late', 'ends', 'here', timeout => '10 minutes'));
my $runs = join(', ', values %run);
wait_until($node, 'all are known to their engines',
	"SELECT count(*) = 0 FROM weir.task_run WHERE run_id IN ($runs) AND (external_run_id IS NULL OR status <> 'running')")
  or diag(value("SELECT t.run_id, t.task_name, t.status, t.error_message FROM weir.task_run t WHERE run_id IN ($runs) AND (external_run_id IS NULL OR status <> 'running')"));
my %id = map { my ($name, $id) = split /\|/; ($name => $id) } split /\n/,
  value("SELECT r.pipeline_name || ' ' || t.task_name, t.external_run_id FROM weir.task_run t JOIN weir.runs r USING (run_id) WHERE t.run_id IN ($runs)");
# The timeout of "late" has passed, and those of "gone" were begun yesterday: that they are not there is not because they are new.
value("UPDATE weir.attempt SET intended_at = intended_at - interval '1 day', started_at = started_at - interval '1 day', "
	. "deadline = deadline - interval '1 day', task_deadline = task_deadline - interval '1 day', kind_state = kind_state || CASE WHEN kind_state ? 'started_ms' THEN jsonb_build_object('started_ms', (kind_state->>'started_ms')::bigint - 86400000) ELSE '{}' END WHERE run_id IN ($run{gone}, $run{late})");
$node->stop('immediate');

# --- meanwhile
my $client = HTTP::Tiny->new(timeout => 60);
my %ended = (
	databricks_job => sub { my ($id) = @_; return grep { $_->{run_id} eq $id && $_->{life_cycle_state} eq 'TERMINATED' || $_->{run_id} eq $id && defined $_->{result_state} } @{ $cloud{here}->runs->{databricks} } },
	adf_pipeline => sub { my ($id) = @_; return grep { $_->{run_id} eq $id && $_->{status} =~ /Succeeded|Failed/ } @{ $cloud{here}->runs->{adf} } },
	fabric_item => sub { my ($id) = @_; return grep { $_->{id} eq $id && $_->{status} =~ /Completed|Failed/ } @{ $cloud{here}->runs->{fabric} } },
	databricks_pipeline => sub { my ($id) = @_; return grep { $_->{update_id} eq $id && $_->{state} =~ /COMPLETED|FAILED/ } map { @$_ } values %{ $cloud{here}->call('GET', 'declarative') } },
	http => sub { my ($id, $name) = @_; return $client->get($cloud{here}->address . "/http/jobs/$id")->{content} =~ /"(done|failed)"/ },
	databricks_sql => sub { my ($id) = @_; return $client->get($cloud{here}->address . "/dbx/api/2.0/sql/statements/$id", { headers => { Authorization => 'Bearer dapi-local' } })->{content} =~ /SUCCEEDED|FAILED/ },
	webhook => sub { my ($id, $name) = @_; return @{ $cloud{here}->call('GET', 'queues')->{ "$name-webhook" } } > 0 });
$ended{databricks_notebook} = $ended{databricks_job};

$_->clear_faults foreach values %cloud;
my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
foreach my $name ('ended', 'failed', 'late')
{
	foreach my $kind (sort keys %kinds)
	{
		select(undef, undef, undef, 0.05) until $ended{$kind}->($id{"$name $kind"}, $name) || time > $limit;
	}
}
cmp_ok(time, '<', $limit, 'they ended while nobody looked');
$cloud{gone}->reset;
my $since = $cloud{here}->ledger(limit => 1)->[-1]{seq};
my $log = -s $node->logfile;
$node->start;

# --- what the log says
sub of { my ($name, $kind, $what) = @_; return value("SELECT $what FROM weir.task_run t JOIN weir.attempt a USING (task_run_id, attempt_no) WHERE t.run_id = $run{$name} AND t.task_name = '$kind'") }

is(wait_for_run($node, $run{ended}), 'succeeded', 'what ended well has succeeded');
is(wait_for_run($node, $run{late}), 'succeeded', 'also what would have been too late, had anybody looked')
  or diag(value("SELECT task_name, status, error_message FROM weir.task_run WHERE run_id = $run{late}"));
is(wait_for_run($node, $run{$_}), 'failed', "$_: has failed") foreach ('failed', 'gone');
foreach my $kind (sort keys %kinds)
{
	is(of('ended', $kind, "t.status || ' ' || t.attempt_no || ' ' || (t.external_run_id = '$id{\"ended $kind\"}')"), 'succeeded 1 true', "$kind: ended");
	is(of('failed', $kind, "t.status || ' ' || t.attempt_no"), of('failed', $kind, "'failed ' || CASE WHEN a.failure_type = 'system' AND t.attempt_no > 1 THEN t.attempt_no ELSE 1 END"), "$kind: failed");
	like(of('failed', $kind, 't.error_message'), $kinds{$kind}{why}, "$kind: why");
	next if $kind eq 'webhook';
	is(of('gone', $kind, "t.status || ' ' || t.attempt_no || ' ' || a.error_code"), 'failed 1 outcome_unknown', "$kind: gone, and not tried again");
	like(of('gone', $kind, 't.error_message'), qr/\Q$id{"gone $kind"}\E.*(not known|not there|no longer|does not exist)|(not known|not there|no longer|does not exist).*\Q$id{"gone $kind"}\E/, "$kind: says which run is gone");
}
wait_until($node, 'those that go on have been asked', "SELECT count(*) = " . keys(%kinds) . " FROM weir.task_run WHERE run_id = $run{going} AND status = 'running'");
foreach my $kind (grep { $_ ne 'webhook' } sort keys %kinds)
{
	my $asked = $cloud{here}->wait(operation => $kinds{$kind}{asked}, since => $since, timeout_ms => 60000);
	ok(@$asked > 0, "$kind: asked");
}
my %operations = map { $kinds{$_}{started} => 1 } keys %kinds;
my $sent = 0;
$sent += $cloud{here}->requests($_, since => $since) foreach keys %operations;
is($sent, value("SELECT count(*) FROM weir.attempt WHERE run_id = $run{failed} AND attempt_no > 1"), 'nothing was begun but what was tried again because it had failed');
value("SELECT weir.cancel($run{going})");
is(wait_for_run($node, $run{going}), 'cancelled', 'what goes on can be cancelled');
foreach my $kind (grep { $_ ne 'webhook' } sort keys %kinds)
{
	is(of('going', $kind, "t.status || ' ' || (t.external_run_id = '$id{\"going $kind\"}')"), 'cancelled true', "$kind: went on");
}
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|already had an outcome/, 'nothing died of itself');

$node->stop;
done_testing();
