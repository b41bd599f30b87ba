# An outside orchestrator as it really comes: a driver that binds parameters,
# typed or not, text or binary, signs in with a password, loses connections and
# retries.  Everything goes over the wire, see wire_client.py.

use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $client = dirname(__FILE__) . '/wire_client.py';
my $node = weir_node('outside');
our $password = 'the orchestrator\'s';

$node->safe_psql('postgres', qq{
	SET password_encryption = 'scram-sha-256';
	CREATE ROLE adf LOGIN PASSWORD '@{[$password =~ s/'/''/gr]}' IN ROLE weir_operator;
	CREATE ROLE stranger LOGIN;
});
unlink($node->data_dir . '/pg_hba.conf');
$node->append_conf('pg_hba.conf', "local all adf scram-sha-256\nlocal all all trust\n");
$node->reload;

sub command
{
	my ($user) = @_;
	return [ 'python3', $client, '--host', $node->host, '--port', $node->port, '--user', $user, '--dbname', 'postgres' ];
}

# Send requests over one connection; returns the answers.
sub wire
{
	my ($user, @requests) = @_;
	my $input = join('', map { $json->encode($_) . "\n" } @requests);
	my ($output, $errors) = ('', '');
	local $ENV{PGPASSWORD} = $password;
	IPC::Run::run(command($user), '<', \$input, '>', \$output, '2>', \$errors);
	diag($errors) if $errors ne '';
	return map { $json->decode($_) } split(/\n/, $output);
}

# The first row of one request, as a Lookup activity sees it.
sub first_row
{
	my ($answer) = wire('adf', @_);
	return $answer->{rows}[0] // $answer;
}

sub untyped { return map { { value => $_ } } @_ }

my $start = 'SELECT * FROM weir.log_execution_start($1, external_system => $2, external_run_id => $3)';

# --- the password is wanted
{
	local $password = 'wrong';
	my ($answer) = wire('adf', { sql => 'SELECT 1' });
	is($answer->{error}{sqlstate}, '28P01', 'a wrong password does not get in');
}

# --- types left open, everything as text: what a Lookup with an expression sends
my $first = first_row({ sql => $start, params => [ untyped('flights', 'adf', 'run-1') ] });
is_deeply([ sort keys %$first ],
	[ qw(BatchStartTime ExecutionID ExecutionStatus IsInitialLoad LastExecutionID NextLoadStatus RowAuditID) ],
	'the columns are named as expressions name them');
is($first->{ExecutionStatus}, 'E', 'the first start runs');
is($first->{IsInitialLoad}, 't', 'it is the initial load');
my $id = $first->{ExecutionID};

# --- the answer got lost: the connection breaks after the call was sent
my @lost = wire('adf', { sql => $start, params => [ untyped('lost', 'adf', 'run-1') ], leave => JSON::PP::true });
is_deeply(\@lost, [ { left => JSON::PP::true } ], 'hung up without reading the answer');
wait_until($node, 'the call has been executed', "SELECT count(*) = 1 FROM weir.runs WHERE pipeline_name = 'lost'");
my $retry = first_row({ sql => $start, params => [ untyped('lost', 'adf', 'run-1') ] });
is($retry->{ExecutionStatus}, 'E', 'the retry gets the answer that was lost');
is($node->safe_psql('postgres', "SELECT count(*) FROM weir.runs WHERE pipeline_name = 'lost'"), '1',
	'and logs no second execution');

# --- types given, everything binary: what a driver sends from typed code
my $activity = first_row({
	sql => 'SELECT * FROM weir.log_activity(execution_id => $1, activity_name => $2, phase => $3, status => $4,'
	  . ' rows_read => $5, rows_copied => $6, started_at => $7, output => $8)',
	params => [
		{ value => $id + 0, type => 'bigint', binary => JSON::PP::true },
		{ value => 'Copy flights', type => 'text', binary => JSON::PP::true },
		{ value => 'land', type => 'text', binary => JSON::PP::true },
		{ value => 'succeeded', type => 'text', binary => JSON::PP::true },
		{ value => 9007199254740993, type => 'bigint', binary => JSON::PP::true },
		{ value => undef, type => 'bigint', binary => JSON::PP::true },
		{ value => '2026-07-01T00:00:00.123456+02:00', type => 'timestamptz', binary => JSON::PP::true },
		{ value => { rowsCopied => 12 }, type => 'jsonb', binary => JSON::PP::true }
	],
	binary => JSON::PP::true
});
is_deeply($activity, { ExecutionID => $id + 0, ActivityName => 'Copy flights', Phase => 'land', Status => 'succeeded' },
	'binary in, binary out');
is($node->safe_psql('postgres', "SELECT rows_read, rows_copied, started_at = '2026-06-30 22:00:00.123456Z' FROM weir.activities WHERE run_id = $id"),
	'9007199254740993|12|t', 'and stored to the last digit');

# --- the transform fails; the restart resumes with the audit id of what landed
my $error = first_row({
	sql => 'SELECT * FROM weir.log_execution_error($1, $2, $3, $4, $5, phase => $6)',
	params => [ untyped($id, 'Notebook', '2200', "caf\x{e9} is closed", '{"runPageUrl": "https://x"}', 'transform') ]
});
is_deeply([ @$error{qw(ExecutionStatus NextLoadStatus)} ], [ 'F', 'D' ], 'landed, then failed: D');
my $second = first_row({ sql => $start, params => [ untyped('flights', 'adf', 'run-2') ], binary => JSON::PP::true });
is_deeply([ @$second{qw(ExecutionStatus NextLoadStatus LastExecutionID RowAuditID IsInitialLoad)} ],
	[ 'D', 'D', $id + 0, $id + 0, JSON::PP::true ], 'the restart resumes');
like($second->{BatchStartTime}, qr/^\d{4}-\d\d-\d\dT/, 'with a batch start time');
my $end = first_row({ sql => 'SELECT * FROM weir.log_execution_end($1)', params => [ untyped($second->{ExecutionID}) ] });
is_deeply([ @$end{qw(ExecutionStatus NextLoadStatus)} ], [ 'S', 'P' ], 'and ends well');

# --- one connection of a pool: an error leaves it usable
my @answers = wire('adf',
	{ sql => 'SELECT * FROM weir.log_execution_end($1)', params => [ untyped('999999999') ] },
	{ sql => 'SELECT * FROM weir.log_row_count($1, $2, $3, $4, $5, $6)', params => [ untyped($id, 'c', 'o', 'Upsert', '1', '1.5') ] },
	{ sql => 'SELECT * FROM weir.log_row_count($1, $2, $3, $4, $5, $6, $7)', params => [ untyped($id, 'c', 'o', 'Insert', '1', '1.5', 'price') ] },
	{ sql => 'SELECT * FROM weir.get_config_variable($1, $2, $3, $4)', params => [ untyped('crm', 'flights', 'watermark', '1900-01-01') ] },
	{ sql => 'SELECT * FROM weir.set_config_variable($1, $2, $3, $4, type => $5)', params => [ untyped('crm', 'flights', 'watermark', '2026-07-01T00:00:00Z', 'timestamptz') ] },
	{ sql => 'SELECT * FROM weir.rollback_execution($1)', params => [ untyped($id) ] });
is($answers[0]{error}{sqlstate}, '42704', 'an unknown execution is an error');
like($answers[0]{error}{hint}, qr/log_execution_start/, 'with a hint');
is($answers[1]{error}{sqlstate}, '22023', 'so is an unknown count type');
is($answers[2]{rows}[0]{RowCount}, '1', 'the connection goes on');
is($answers[3]{rows}[0]{VariableValue}, '1900-01-01', 'the default of a variable');
is($answers[4]{rows}[0]{VariableValue}, '2026-07-01 00:00:00+00', 'the variable set');
is_deeply($answers[5]{rows}, [], 'nothing to roll back after a success');

# --- who may
my ($refused) = wire('stranger', { sql => $start, params => [ untyped('flights', 'adf', 'run-3') ] });
is($refused->{error}{sqlstate}, '42501', 'a stranger may not log');

# --- text stays text, whatever it looks like
my $evil = q{x'); DROP TABLE weir.run; --};
my $named = first_row({ sql => $start, params => [ untyped($evil, $evil, $evil) ] });
is($named->{ExecutionStatus}, 'E', 'a name is a name');
is($node->safe_psql('postgres', "SELECT pipeline_name = external_run_id FROM weir.runs WHERE run_id = $named->{ExecutionID}"), 't',
	'stored as it came');

# --- everybody at once: one runs, whether the pipeline was known or not
foreach my $round (1 .. 3)
{
	my @handles;
	foreach my $n (1 .. 8)
	{
		my %handle = (input => $json->encode({
			sql => $start, params => [ untyped('crowd', 'adf', "crowd-$round-$n") ] }) . "\n", output => '');
		local $ENV{PGPASSWORD} = $password;
		$handle{run} = IPC::Run::start(command('adf'), '<', \$handle{input}, '>', \$handle{output});
		push @handles, \%handle;
	}
	my %count;
	my $running;
	foreach my $handle (@handles)
	{
		$handle->{run}->finish;
		my $row = $json->decode($handle->{output})->{rows}[0];
		$count{ $row->{ExecutionStatus} }++;
		$running = $row->{ExecutionID} if $row->{ExecutionStatus} eq 'E';
	}
	is_deeply(\%count, { E => 1, A => 7 }, "round $round: one of eight runs");
	first_row({ sql => 'SELECT * FROM weir.log_execution_end($1)', params => [ untyped($running) ] });
}

# --- the server dies under an execution: it is still there, and so is the decision
my $before = first_row({ sql => $start, params => [ untyped('crash', 'adf', 'crash-1') ] });
first_row({ sql => 'SELECT * FROM weir.log_activity($1, $2, $3)', params => [ untyped($before->{ExecutionID}, 'Copy', 'land') ] });
first_row({ sql => 'SELECT * FROM weir.log_activity($1, $2, $3, $4)', params => [ untyped($before->{ExecutionID}, 'Merge', 'transform', 'running') ] });
$node->stop('immediate');
$node->start;
is(first_row({ sql => $start, params => [ untyped('crash', 'adf', 'crash-2') ] })->{ExecutionStatus}, 'A',
	'still running as far as anybody knows');
my $after = first_row({
	sql => 'SELECT * FROM weir.log_execution_start($1, external_run_id => $2, stale_after => $3)',
	params => [ untyped('crash', 'crash-3', '0 seconds') ]
});
is_deeply([ @$after{qw(ExecutionStatus RowAuditID LastExecutionID)} ], [ 'D', $before->{ExecutionID}, $before->{ExecutionID} ],
	'past its limit it counts as crashed while it transformed');

# --- it begins while the conductor starts the runs that it found: the conductor is held between two of them
$node->safe_psql('postgres', q{
	SELECT weir.create_pipeline('found_' || n, '{"tasks": [{"name": "a", "kind": "noop"}]}') FROM generate_series(1, 2) AS n;
	CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN PERFORM pg_advisory_xact_lock_shared(40); RETURN NEW; END$$;
	CREATE TRIGGER hold BEFORE INSERT ON weir.task_run FOR EACH ROW EXECUTE FUNCTION public.hold();
	BEGIN; SELECT pg_advisory_xact_lock(40); PREPARE TRANSACTION 'hold'});
my ($held, $overtaken) = split /\|/, $node->safe_psql('postgres', "SELECT weir.trigger('found_1'), weir.trigger('found_2')");
ok(wait_until($node, 'the conductor is held', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'weir conductor' AND wait_event = 'advisory'"),
	'the conductor starts the first of two runs');
my $between = first_row({ sql => $start, params => [ untyped('found_2', 'adf', 'between') ] });
is($between->{ExecutionStatus}, 'E', 'an execution of the other pipeline begins');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'hold'");
is(wait_for_run($node, $held), 'succeeded', 'the first run runs');
is($node->safe_psql('postgres', "SELECT status FROM weir.run WHERE run_id = $overtaken"), 'queued', 'the second waits for the execution');
first_row({ sql => 'SELECT * FROM weir.log_execution_end($1)', params => [ untyped($between->{ExecutionID}) ] });
is(wait_for_run($node, $overtaken), 'succeeded', 'and runs after it');

$node->stop;
done_testing();
