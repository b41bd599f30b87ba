# Locks are taken pipeline -> run -> task run, ids ascending.
#
# Somebody holds one row: a prepared transaction, so that it needs no session.
# Whoever wants that row waits, and what it holds by then is what it took
# before: nothing that comes later in the order may be locked.  At the end
# many sessions do everything at once, and the server finds no deadlock.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('locks', conf => "deadlock_timeout = 20ms\nlog_lock_waits = on\nmax_prepared_transactions = 20\n");

$node->safe_psql('postgres', 'CREATE ROLE loader LOGIN IN ROLE weir_admin');

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

sub task
{
	my ($name, $sql, %more) = @_;
	return { name => $name, kind => 'sql', spec => { sql => $sql }, %more };
}

sub pipeline
{
	my ($name, $tasks, %more) = @_;
	my $definition = literal($json->encode({ tasks => $tasks, %more }));
	value("SET ROLE loader; SELECT weir.create_pipeline('$name', $definition)");
	return value("SELECT pipeline_id FROM weir.pipeline WHERE name = '$name'");
}

# --- who holds what

sub hold
{
	my ($name, $sql) = @_;
	value("BEGIN; $sql; PREPARE TRANSACTION '$name'");
	return;
}
sub let_go { value("ROLLBACK PREPARED '$_[0]'"); return }

sub state_of { return "weir.pipeline_state WHERE pipeline_id = $_[0]" }
sub run_of { return "weir.run WHERE run_id = $_[0]" }
sub task_of { return "weir.task_run WHERE run_id = $_[0] AND task_name = '$_[1]'" }
sub hold_row { hold($_[0], "SELECT FROM $_[1] FOR UPDATE"); return }

# Are these rows locked by somebody?
sub locked
{
	my ($rows) = @_;
	return value("SELECT (SELECT count(*) FROM $rows) <> (SELECT count(*) FROM (SELECT FROM $rows FOR UPDATE SKIP LOCKED) x)") eq 't';
}

sub holds { my ($rows, $what) = @_; ok(locked($rows), "$what: held"); return }
sub free { my ($rows, $what) = @_; ok(!locked($rows), "$what: not held"); return }

# A backend whose query or type is like the pattern waits for a row.
sub waits_for_row
{
	my ($pattern, $n) = @_;
	$n //= 1;
	return wait_until($node, "$pattern waits for a row",
		"SELECT count(*) = $n FROM pg_stat_activity WHERE (backend_type LIKE '$pattern' OR query LIKE '$pattern')"
		. " AND wait_event_type = 'Lock' AND wait_event IN ('transactionid', 'tuple') AND pid <> pg_backend_pid()");
}

sub gate { return "SELECT pg_advisory_xact_lock_shared($_[0])" }
sub close_gate { hold("gate $_[0]", "SELECT pg_advisory_xact_lock($_[0])"); return }
sub open_gate { let_go("gate $_[0]"); return }

sub at_gate
{
	my ($gate) = @_;
	return wait_until($node, "somebody waits at gate $gate",
		"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = $gate AND NOT granted");
}

# A statement of a client in the background.
sub start
{
	my ($sql) = @_;
	my %client = (out => '', err => '');
	$client{harness} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', $sql ],
		'>', \$client{out}, '2>', \$client{err});
	return \%client;
}

sub finish
{
	my ($client, $what) = @_;
	$client->{harness}->finish;
	is($client->{err}, '', "$what: no error");
	return $client->{out};
}

sub conducting
{
	my ($what) = @_;
	my $run = weir_trigger($node, 'trivial');
	is(wait_for_run($node, $run), 'succeeded', "$what: the conductor goes on");
	return;
}

pipeline('trivial', [ { name => 'a', kind => 'noop', spec => {} } ]);

# --- a SQL worker writes its outcome
my $p = pipeline('worked', [ task('a', gate(1)), task('b', 'SELECT 1', depends_on => ['a']) ]);
foreach my $case ('pipeline', 'run', 'task run')
{
	close_gate(1);
	my $run = weir_trigger($node, 'worked');
	wait_for_status($node, $run, 'a', 'running');
	at_gate(1);
	hold_row('row', $case eq 'pipeline' ? state_of($p) : $case eq 'run' ? run_of($run) : task_of($run, 'a'));
	open_gate(1);
	ok(waits_for_row('weir SQL worker%'), "the SQL worker waits for the $case");
	my $what = "for the $case a SQL worker waits";
	holds(state_of($p), "$what, its pipeline") if $case ne 'pipeline';
	holds(run_of($run), "$what, its run") if $case eq 'task run';
	free(run_of($run), "$what, its run") if $case eq 'pipeline';
	free(task_of($run, 'a'), "$what, its task run") if $case ne 'task run';
	free(task_of($run, 'b'), "$what, the next task run");
	conducting($what);
	let_go('row');
	is(wait_for_run($node, $run), 'succeeded', 'then the run ends');
}

# --- the conductor: waits for no pipeline and no run, takes them in the order
foreach my $case ('pipeline', 'run')
{
	close_gate(1);
	my $run = weir_trigger($node, 'worked');
	wait_for_status($node, $run, 'a', 'running');
	at_gate(1);
	hold_row('row', $case eq 'pipeline' ? state_of($p) : run_of($run));
	value("SELECT weir.cancel($run)");
	my $queued = weir_trigger($node, 'worked');
	conducting("somebody holds the $case of a run to be cancelled");
	is(value("SELECT status FROM weir.run WHERE run_id = $run"), 'running', 'which is not cancelled yet');
	let_go('row');
	is(wait_for_run($node, $run), 'cancelled', 'but then');
	open_gate(1);
	is(wait_for_run($node, $queued), 'succeeded', 'and the next one runs');
}
{
	close_gate(1);
	my $run = weir_trigger($node, 'worked');
	wait_for_status($node, $run, 'a', 'running');
	at_gate(1);
	hold_row('row', task_of($run, 'b'));
	value("SELECT weir.cancel($run)");
	ok(waits_for_row('weir conductor%'), 'for a task run the conductor waits');
	holds(state_of($p), 'then the pipeline');
	holds(run_of($run), 'then the run');
	let_go('row');
	is(wait_for_run($node, $run), 'cancelled', 'then the run is cancelled');
	open_gate(1);
}
{
	my $failing = pipeline('repaired', [ task('a', 'SELECT 1'), task('b', 'SELECT 1 / 0', depends_on => ['a']) ]);
	my $run = weir_trigger($node, 'repaired');
	is(wait_for_run($node, $run), 'failed', 'a run to be repaired');
	hold_row('row', task_of($run, 'b'));
	value("SELECT weir.repair($run)");
	ok(waits_for_row('weir conductor%'), 'repairing, the conductor waits for a task run');
	holds(state_of($failing), 'then the pipeline');
	holds(run_of($run), 'then the run');
	free(task_of($run, 'a'), 'then another task run');
	let_go('row');
	wait_until($node, 'the repair', "SELECT repair_no = 1 FROM weir.run WHERE run_id = $run");
	is(wait_for_run($node, $run), 'failed', 'then the run is repaired');
}
{
	my $noops = pipeline('noops', [ { name => 'a', kind => 'noop', spec => {} }, { name => 'b', kind => 'noop', spec => {}, depends_on => ['a'] } ]);
	close_gate(2);
	my $mixed = pipeline('mixed', [ task('a', gate(2)), { name => 'b', kind => 'noop', spec => {}, depends_on => ['a'] } ]);
	my $run = weir_trigger($node, 'mixed');
	wait_for_status($node, $run, 'a', 'running');
	at_gate(2);
	hold_row('row', task_of($run, 'b'));
	open_gate(2);
	ok(waits_for_row('weir SQL worker%'), 'a SQL worker waits for the task run that follows');
	holds(state_of($mixed), 'then the pipeline');
	holds(run_of($run), 'then the run');
	holds(task_of($run, 'a'), 'then the task run before it');
	let_go('row');
	is(wait_for_run($node, $run), 'succeeded', 'then the run ends');
}

# --- outside orchestrators
sub outside
{
	my ($name, $more) = @_;
	return value("SELECT \"ExecutionID\" FROM weir.log_execution_start('$name'" . ($more ? ", $more" : '') . ")");
}

my $run = outside('outer');
$p = value("SELECT pipeline_id FROM weir.pipeline WHERE name = 'outer'");
foreach my $end ("SELECT weir.log_execution_end($run)", "SELECT weir.log_execution_error($run)", "SELECT weir.reset_execution($run)", "SELECT weir.rollback_execution($run)")
{
	my ($name) = $end =~ /weir\.(\w+)/;
	hold_row('row', state_of($p));
	my $client = start("BEGIN; $end; ROLLBACK");
	ok(waits_for_row("%$end%"), "$name waits for the pipeline");
	free(run_of($run), 'then the run');
	let_go('row');
	finish($client, $name);
	hold_row('row', run_of($run));
	$client = start("BEGIN; $end; ROLLBACK");
	ok(waits_for_row("%$end%"), "$name waits for the run");
	# Who sets a variable for the run may come to want the pipeline: a rollback waits for him first, with nothing held.
	$name eq 'rollback_execution' ? free(state_of($p), 'and not the pipeline') : holds(state_of($p), 'then the pipeline');
	let_go('row');
	finish($client, $name);
}

# a child: its pipeline, its batch, itself
my $batch = outside('the batch', 'is_batch => true');
my $child = outside('a child', "parent_execution_id => $batch");
my $child_state = state_of(value("SELECT pipeline_id FROM weir.run WHERE run_id = $child"));
my $batch_state = state_of(value("SELECT pipeline_id FROM weir.run WHERE run_id = $batch"));
hold_row('row', run_of($batch));
my $client = start("BEGIN; SELECT weir.log_execution_end($child); ROLLBACK");
ok(waits_for_row("%weir.log_execution_end($child)%"), 'the end of a child waits for its batch');
holds($child_state, 'then its pipeline');
free(run_of($child), 'then its own run');
let_go('row');
finish($client, 'the end of a child');

# a batch whose children's pipelines are older and younger than its own
sub family
{
	my ($name) = @_;
	value("SELECT weir.log_execution_end(\"ExecutionID\") FROM weir.log_execution_start('$name $_')") foreach ('1 old', '2 batch', '3 young');
	my $id = outside("$name 2 batch", 'is_batch => true');
	my @children = map { outside("$name $_", "parent_execution_id => $id") } ('1 old', '3 young');
	return ($id, map { state_of($_) } split /\n/, value("SELECT pipeline_id FROM weir.pipeline WHERE name LIKE '$name _ %' ORDER BY 1"));
}
foreach my $end ('log_execution_end(%s)', 'log_execution_error(%s)', 'reset_execution(%s)', "log_execution_start('stale 2 batch', is_batch => true, stale_after => '0')")
{
	my ($name) = $end =~ /^(\w+)/;
	my ($id, @states) = family($name eq 'log_execution_start' ? 'stale' : $name);
	my $sql = "SELECT weir.$end" =~ s{%s}{$id}r;
	foreach my $n (0 .. 2)
	{
		hold_row('row', $states[$n]);
		$client = start("BEGIN; $sql; ROLLBACK");
		ok(waits_for_row('%' . ($sql =~ s/'/''/gr) . '%'), "$name of a batch waits for pipeline $n of its family");
		foreach my $m (0 .. 2)
		{
			holds($states[$m], "then pipeline $m") if $m < $n;
			free($states[$m], "then pipeline $m") if $m > $n;
		}
		free(run_of($id), 'then the batch');
		let_go('row');
		finish($client, $name);
	}
}

# --- what clients say of a run of weir does not stand in the way
# Each of these locks the run until the client commits.
my %says = (
	'set_config_variable' => "SELECT weir.set_config_variable('locks', 'o', 'says', '1', %s)",
	'log_activity' => "SELECT weir.log_activity(%s, 'says', 'land')",
	'log_execution_start' => "SELECT weir.log_execution_start('said', parent_execution_id => %s)",
);
foreach my $name (sort keys %says)
{
	close_gate(1);
	my $held = weir_trigger($node, 'worked');
	wait_for_status($node, $held, 'a', 'running');
	at_gate(1);
	hold('client', sprintf($says{$name}, $held));
	open_gate(1);
	is(wait_for_run($node, $held), 'succeeded', "$name in an open transaction: the run ends");
	let_go('client');
}

# Nor do two tasks of one run that say it in their own transactions: each
# locks the run before its worker takes the pipeline.
foreach my $name (sort keys %says)
{
	my $sql = sprintf($says{$name}, '{{run.id}}');
	my ($three, $four) = map { $sql =~ s/'(says|said)'/'$1 $_'/r . '; ' . gate($_) } (3, 4);
	pipeline("parallel $name", [ task('three', $three), task('four', $four) ]);
	close_gate(3);
	close_gate(4);
	my $both = weir_trigger($node, "parallel $name");
	at_gate(3);
	at_gate(4);
	open_gate(3);
	is(wait_for_status($node, $both, 'three', 'succeeded'), 'succeeded', "$name in two tasks of a run: the first ends");
	open_gate(4);
	is(wait_for_run($node, $both), 'succeeded', 'and the second');
	is(value("SELECT string_agg(status, ',') FROM weir.attempt WHERE run_id = $both"), 'succeeded,succeeded', 'each at once');
}

# --- drop and trigger: the pipeline's own row first
$p = pipeline('dropped', [ { name => 'a', kind => 'noop', spec => {} } ]);
hold_row('row', state_of($p));
$client = start("SELECT weir.drop_pipeline('dropped')");
ok(waits_for_row("%weir.drop_pipeline%"), 'a drop waits for the state of the pipeline');
holds("weir.pipeline WHERE pipeline_id = $p", 'then the pipeline');
let_go('row');
finish($client, 'drop_pipeline');

unlike(slurp_file($node->logfile), qr/deadlock detected/, 'no deadlock up to here');

# --- everything at once
# Some of these calls are refused, as they should be; none may be a deadlock.
family('stress');
my $last = '(SELECT max(run_id) FROM weir.run WHERE pipeline_name = %s)';
my ($batch_of_family, @children_of_family) = map { sprintf($last, "'stress $_'") } ('2 batch', '1 old', '3 young');
my @orders = ([ '1 old', '3 young' ], [ '3 young', '1 old' ]);
my @sessions = (
	map({
		my $order = $_;
		join(";\n", "SELECT weir.log_execution_start('stress 2 batch', is_batch => true, stale_after => '0')",
			map({ "SELECT weir.log_execution_start('stress $_', parent_execution_id => $batch_of_family, stale_after => '0')" } @$order),
			map({ "SELECT weir.log_activity($_, 'land', 'land')" } @children_of_family),
			map({ "SELECT weir.log_execution_end($_)" } @children_of_family, $batch_of_family))
	} @orders),
	join(";\n", map({ "SELECT weir.log_execution_error($_, 'x', phase => 'transform')" } @children_of_family, $batch_of_family),
		map({ "SELECT weir.rollback_execution($_)" } $batch_of_family, @children_of_family),
		"SELECT weir.skip_once('stress 1 old', true)"),
	map({
		my $name = $_;
		my $of = sprintf($last, "'parallel $name'");
		join(";\n", "SELECT weir.trigger('parallel $name') FROM generate_series(1, 3)",
			sprintf($says{$name}, $of), "SELECT weir.cancel($of)", "SELECT weir.repair($of)",
			"SELECT weir.pause_pipeline('parallel $name')", "SELECT weir.trigger('mixed')",
			"SELECT weir.resume_pipeline('parallel $name')", "SELECT weir.alter_pipeline('parallel $name', weir.describe_pipeline('parallel $name'))")
	} sort keys %says));
my @clients = map({
	my %psql = (in => ("$_;\n" x 12), out => '');
	$psql{harness} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$psql{in}, '>', \$psql{out}, '2>', \$psql{out});
	\%psql;
} @sessions);
$_->{harness}->finish foreach @clients;
value('SELECT weir.resume_pipeline(name) FROM weir.pipeline WHERE is_paused');
ok(wait_until($node, 'all runs of weir have ended',
	"SELECT count(*) = 0 FROM weir.run WHERE NOT is_external AND status IN ('queued', 'running', 'cancelling')"), 'all runs of weir end');
cmp_ok(value("SELECT count(*) FROM weir.run WHERE status = 'succeeded'"), '>', 100, 'most of them well');
unlike(slurp_file($node->logfile), qr/deadlock detected/, 'and no deadlock among them');

$node->stop;
done_testing();
