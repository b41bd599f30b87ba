# WeirEveryKind.pm - runs of every kind that begins work in a cloud, while
# nobody is there to be told how it goes: it ends well, fails, goes on for
# hours, or is gone.
#
#   my $every = WeirEveryKind->new($node, here => $cloud, gone => $other);
#   my $run = $every->start('failed', 'fails', 'here');	# ends, fails or goes_on; more members of the tasks
#   $every->ended_there('failed', $kind)			# has the engine's own run ended?

package WeirEveryKind;

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my %follow = (method => 'POST', path => '/jobs', id => '$.id', error => { message => '$.error' },
	poll => { path => '/jobs/{id}', every => 0.3, status => '$.state', succeeded => ['done'], failed => ['failed'], cancelled => ['stopped'] });


sub _own { return sprintf('00000000-0000-4000-9000-%012d', $_[0]) }

# For each kind: its connection; what it is asked to do so that it ends well,
# fails, or goes on for hours; what the engine is asked while it runs; what the
# log says of a run that is gone.  http and webhook cannot be cancelled here.
our %kinds = (
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
	fabric_item => { connection => 'fabric', ends => { item => _own(1), job_type => 'RunNotebook' }, fails => { item => _own(2), job_type => 'RunNotebook', parameters => { fail => 'cell 3' } },
		goes_on => { item => _own(3), job_type => 'RunNotebook', parameters => { seconds => 36000 } }, asked => 'fabric.get', started => 'fabric.run', why => qr/cell 3/ },
	http => { connection => 'api', ends => { %follow, body => { seconds => 1 } }, fails => { %follow, body => { seconds => 1, fail => 'no disk' } },
		goes_on => { %follow, body => { seconds => 36000 }, cancel => { method => 'POST', path => '/jobs/{id}/stop' } }, asked => 'http.job-get', started => 'http.job-start',
		why => qr/no disk/ },
	webhook => { connection => 'queue', own => 1, ends => { body => { seconds => 1 } }, fails => { body => { seconds => 1, fail => 'no disk' } },
		goes_on => { body => { seconds => 36000 } }, asked => 'queue.get', started => 'http.job-start', why => qr/no disk/ });


sub new
{
	my ($class, $node, %cloud) = @_;
	my $self = bless { node => $node, cloud => \%cloud, run => {}, client => HTTP::Tiny->new(timeout => 60) }, $class;

	$self->value(q{SELECT weir.create_secret('token', 'dapi-local'), weir.create_secret('entra', 'weir-secret')});
	foreach my $at (sort keys %cloud)
	{
		my $address = $cloud{$at}->address;
		my $auth = qq('{"type": "entra_client_secret", "tenant_id": "local", "client_id": "weir-client", "client_secret": "entra", "authority": "$address"}');
		$self->value(qq{
			SELECT weir.create_connection('${at}_dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}', '{"settle_seconds": 1}');
			SELECT weir.create_connection('${at}_adf', 'adf', '$address/adf', $auth, '{"subscription_id": "s1", "resource_group": "rg", "factory": "adf-dev", "settle_seconds": 1}');
			SELECT weir.create_connection('${at}_fabric', 'fabric', '$address/fabric/v1', $auth, '{"workspace_id": "00000000-0000-4000-8000-000000000001", "settle_seconds": 1}');
			SELECT weir.create_connection('${at}_api', 'http', '$address/http');
			SELECT weir.create_connection('${at}_svc', 'http', '$address/http');
			SELECT weir.create_connection('${at}_queue', 'http', '$address/queue')});
	}
	return $self;
}

sub kinds { return sort keys %kinds }
sub node { my ($self, $node) = @_; $self->{node} = $node if $node; return $self->{node} }
sub value { my ($self, $sql) = @_; return $self->{node}->safe_psql('postgres', $sql) }
sub runs { my ($self, @names) = @_; return join(', ', map { $self->{run}{$_} } @names ? @names : sort keys %{ $self->{run} }) }

# Whoever asks how it goes waits; more members of the faults.
sub hold
{
	my ($self, %more) = @_;
	foreach my $cloud (values %{ $self->{cloud} })
	{
		$cloud->add_fault(operation => $_, fault => 'hold', times => undef, %more) foreach map { $_->{asked} } values %kinds;
	}
	return;
}

# What is asked of a webhook, and which declarative pipeline, says the name of the task alone.
sub _spec
{
	my ($self, $kind, $what, $name, $at) = @_;
	my $cloud = $self->{cloud}{$at};
	my %spec = %{ $kinds{$kind}{$what} };

	if ($kind eq 'webhook')
	{
		my $queue = $name =~ tr/_/-/r;
		$cloud->call('POST', 'queues', { queue => $queue, create => JSON::PP::true });
		return { queue => $queue, every => 0.3, hide_seconds => 2, status => '$.state', succeeded => ['done'], error => { message => '$.error' },
			request => { connection => "${at}_svc", method => 'POST', path => '/jobs', id => '$.id',
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

# A pipeline with a task of every kind, but for those left out; what they are
# asked to do, in which cloud.  Starts a run of it.
sub start
{
	my ($self, $name, $what, $at, %more) = @_;
	my %without = map { $_ => 1 } @{ delete $more{without} // [] };
	my $of_run = delete $more{pipeline} // {};
	my @tasks = map { { name => $_, kind => $_, connection => "${at}_$kinds{$_}{connection}", spec => $self->_spec($_, $what, "${name}_$_", $at),
			retry => { max_attempts => 3, initial_delay => '100 milliseconds' }, %more } } grep { !$without{$_} } kinds();
	$self->value("SELECT weir.create_pipeline('$name', '" . ($json->encode({ %$of_run, tasks => \@tasks }) =~ s/'/''/gr) . "')");
	return $self->{run}{$name} = weir_trigger($self->{node}, $name);
}

# Wait until the engines know all runs; their ids there.
sub known
{
	my ($self, @names) = @_;
	my $runs = $self->runs(@names);
	wait_until($self->{node}, 'all are known to their engines',
		"SELECT count(*) = 0 FROM weir.task_run WHERE run_id IN ($runs) AND (external_run_id IS NULL OR status <> 'running')")
	  or diag($self->value("SELECT t.run_id, t.task_name, t.status, t.error_message FROM weir.task_run t WHERE run_id IN ($runs) AND (external_run_id IS NULL OR status <> 'running')"));
	$self->{id} = { map { my ($name, $id) = split /\|/; ($name => $id) } split /\n/,
		$self->value("SELECT r.pipeline_name || ' ' || t.task_name, t.external_run_id FROM weir.task_run t JOIN weir.runs r USING (run_id) WHERE t.run_id IN ($runs)") };
	return $self->{id};
}

my %ended = (
	databricks_job => sub { my ($self, $id) = @_; return grep { $_->{run_id} eq $id && ($_->{life_cycle_state} eq 'TERMINATED' || defined $_->{result_state}) } @{ $self->{cloud}{here}->runs->{databricks} } },
	adf_pipeline => sub { my ($self, $id) = @_; return grep { $_->{run_id} eq $id && $_->{status} =~ /Succeeded|Failed/ } @{ $self->{cloud}{here}->runs->{adf} } },
	fabric_item => sub { my ($self, $id) = @_; return grep { $_->{id} eq $id && $_->{status} =~ /Completed|Failed/ } @{ $self->{cloud}{here}->runs->{fabric} } },
	databricks_pipeline => sub { my ($self, $id) = @_; return grep { $_->{update_id} eq $id && $_->{state} =~ /COMPLETED|FAILED/ } map { @$_ } values %{ $self->{cloud}{here}->call('GET', 'declarative') } },
	http => sub { my ($self, $id) = @_; return $self->{client}->get($self->{cloud}{here}->address . "/http/jobs/$id")->{content} =~ /"(done|failed)"/ },
	databricks_sql => sub { my ($self, $id) = @_; return $self->{client}->get($self->{cloud}{here}->address . "/dbx/api/2.0/sql/statements/$id", { headers => { Authorization => 'Bearer dapi-local' } })->{content} =~ /SUCCEEDED|FAILED/ },
	webhook => sub { my ($self, $id, $name) = @_; return @{ $self->{cloud}{here}->call('GET', 'queues')->{ ($name =~ tr/_/-/r) . '-webhook' } } > 0 });
$ended{databricks_notebook} = $ended{databricks_job};

sub ended_there { my ($self, $name, $kind) = @_; return $ended{$kind}->($self, $self->{id}{"$name $kind"}, $name) }

# Nothing is held any more; wait until these have ended where they run.
sub let_end
{
	my ($self, @names) = @_;
	$_->clear_faults foreach values %{ $self->{cloud} };
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	foreach my $name (@names)
	{
		foreach my $kind (kinds())
		{
			select(undef, undef, undef, 0.05) until $self->ended_there($name, $kind) || time > $limit;
		}
	}
	cmp_ok(time, '<', $limit, 'they ended while nobody looked');
	return;
}

# Of a task and its attempt
sub of
{
	my ($self, $name, $kind, $what) = @_;
	return $self->value("SELECT $what FROM weir.task_run t JOIN weir.attempt a USING (task_run_id, attempt_no) WHERE t.run_id = $self->{run}{$name} AND t.task_name = '$kind'");
}

# How much work was begun here since then.
sub begun
{
	my ($self, $since) = @_;
	my %operations = map { $_->{started} => 1 } values %kinds;
	my $n = 0;
	$n += $self->{cloud}{here}->requests($_, since => $since) foreach keys %operations;
	return $n;
}

1;
