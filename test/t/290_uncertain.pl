# Nobody knows whether an engine began what it was asked for: what the task's
# on_uncertain makes of it, what somebody who looked may say, also over a
# crash; and runs that were started in the engine by hand.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('uncertain');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub refused { my ($sql, $pattern, $what) = @_; my ($status, $out, $error) = $node->psql('postgres', $sql); like($error, $pattern, $what); return }

value(qq{
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_connection('api', 'http', '$address/http');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}');
	CREATE TABLE after (run_id bigint)});

sub define { my ($name, @tasks) = @_; return value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => \@tasks })) . ')') }
sub post { my ($name, %more) = @_; return { name => 'post', kind => 'http', connection => 'api', spec => { method => 'POST', path => "/json/$name" }, %more } }
sub after { return { name => 'after', kind => 'sql', depends_on => ['post'], spec => { sql => 'INSERT INTO after VALUES ({{run.id}})' } } }
sub asked { my ($name) = @_; return scalar grep { $_->{path} eq "/http/json/$name" } @{ $cloud->ledger(operation => 'http.json') } }
sub attempts { return value("SELECT string_agg(concat_ws(' ', status, error_code), ', ' ORDER BY attempt_no) FROM weir.attempts WHERE run_id = $_[0] AND kind = 'http'") }
sub of_task { my ($run, $what, $task) = @_; return value("SELECT $what FROM weir.task_run WHERE run_id = $run AND task_name = '" . ($task // 'post') . "'") }
sub task_run { return of_task($_[0], 'task_run_id', $_[1]) }

# A run whose request arrives, and whose answer does not.
sub lose
{
	my ($name, $policy, %more) = @_;
	define($name, post($name, (defined $policy ? (on_uncertain => $policy) : ()), %more), after());
	$cloud->add_fault(operation => 'http.json', path => "/http/json/$name", fault => 'reset_after', times => 1);
	return weir_trigger($node, $name);
}

sub ask
{
	my ($name, %more) = @_;
	my $run = lose($name, 'ask', %more);
	wait_until($node, "$name: uncertain", "SELECT count(*) = 1 FROM weir.attempts WHERE run_id = $run AND status = 'uncertain'");
	return $run;
}

# --- the policies
my $run = lose('by_default');
is(wait_for_run($node, $run), 'failed', 'unless something else is said, it fails');
is(attempts($run), 'failed outcome_unknown', '... and says so');

$run = lose('assume', 'assume_started');
is(wait_for_run($node, $run), 'succeeded', 'assume_started: it counts as done');
is(of_task($run, "output->>'assumed_started'"), 'true', '... and the output says that this was assumed');
is(asked('assume'), 1, '... asked once');

$run = lose('again', 'send_again');
is(wait_for_run($node, $run), 'succeeded', 'send_again: it is sent again');
is(asked('again') . ' ' . attempts($run), '2 succeeded', '... in the same attempt');

# --- somebody is asked
$run = ask('resend');
is(value("SELECT waiting_for || ' ' || (hint LIKE '%weir.resolve(" . task_run($run) . "%') FROM weir.why($run) WHERE task = 'post'"), 'decision true', 'why says who has to do what');
is(of_task($run, 'status'), 'running', 'the task goes on meanwhile');
my $log = -s $node->logfile;
kill9_backend($node, 'weir conductor');
wait_for_restart($node, $log);
wait_until($node, 'another conductor', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'weir conductor'");
is(attempts($run) . ' ' . asked('resend'), 'uncertain 1', 'after a crash it still is');
value('SELECT weir.resolve(' . task_run($run) . ", 'send_again', 'the service has no trace of it')");
is(wait_for_run($node, $run), 'succeeded', 'sent again because somebody says so');
is(asked('resend') . ' ' . attempts($run), '2 succeeded', '... once, in the same attempt');
is(value("SELECT concat_ws(' ', r->>'decision', r->>'by' = current_user, r->>'reason') FROM (SELECT kind_state->'resolved' AS r FROM weir.attempts WHERE run_id = $run AND kind_state ? 'resolved') x"),
	'send_again t the service has no trace of it', '... and who said so, and why, stays in the log');
is(value("SELECT count(*) FROM after WHERE run_id = $run"), '1', '... and the next task has run');

$run = ask('it_did');
value('SELECT weir.resolve(' . task_run($run) . ", 'succeeded')");
is(wait_for_run($node, $run), 'succeeded', 'resolved as succeeded');
like(of_task($run, "output->>'resolved_by'"), qr/\w/, '... by somebody who is named');
is(asked('it_did'), 1, '... and not sent again');
refused('SELECT weir.resolve(' . task_run($run) . ", 'succeeded')", qr/is not uncertain/, 'once is enough');

$run = ask('it_did_not');
value('SELECT weir.resolve(' . task_run($run) . ", 'failed', 'found nothing')");
is(wait_for_run($node, $run), 'failed', 'resolved as failed');
like(of_task($run, 'error_message'), qr/resolved as failed by .*: found nothing/, '... with the reason');

$run = ask('cancelled');
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'cancelled while nobody knows');
is(ask_late(), 'failed timed_out', 'out of time while nobody knows');
sub ask_late
{
	my $late = ask('late', timeout => '2 seconds');
	my $status = wait_for_run($node, $late);
	return "$status " . of_task($late, 'status');
}

# A decision that is not taken in yet survives a crash.
$run = ask('decided');
kill('STOP', my $conductor = backend_pid($node, 'weir conductor')) == 1 or die "kill: $!";
value('SELECT weir.resolve(' . task_run($run) . ", 'succeeded')");
refused('SELECT weir.resolve(' . task_run($run) . ", 'failed')", qr/is being decided already/, 'the first decision counts');
$log = -s $node->logfile;
kill('KILL', $conductor) == 1 or die "kill: $!";
wait_for_restart($node, $log);
is(wait_for_run($node, $run), 'succeeded', 'a decision survives a crash');

# --- a run that was started in the engine by hand
define('adopts', { name => 'job', kind => 'databricks_job', connection => 'dbx', spec => { job_id => 103 } }, { %{ after() }, depends_on => ['job'] });
$run = weir_trigger($node, 'adopts');
is(wait_for_run($node, $run), 'failed', 'a job fails');
my $answer = HTTP::Tiny->new->post("$address/dbx/api/2.2/jobs/run-now",
	{ headers => { 'Authorization' => 'Bearer dapi-local', 'Content-Type' => 'application/json' }, content => '{"job_id": 102}' });
my $by_hand = $json->decode($answer->{content})->{run_id};
my $begun = $cloud->requests('databricks.run-now');
is(value('SELECT weir.adopt(' . task_run($run, 'job') . ", '$by_hand', 'started by hand')"), $run, 'its task run adopts another one');
wait_until($node, 'the run has gone on', "SELECT repair_no = 1 FROM weir.run WHERE run_id = $run");
is(wait_for_run($node, $run), 'succeeded', 'which succeeds');
is($cloud->requests('databricks.run-now'), $begun, 'nothing was started for it');
is(of_task($run, 'external_run_id', 'job'), $by_hand, 'the log names it');
is(value("SELECT string_agg(status, ', ' ORDER BY attempt_no) FROM weir.attempts WHERE run_id = $run AND task_name = 'job'"),
	'failed, succeeded', 'in an attempt of its own');

# --- what is refused
refused('SELECT weir.adopt(' . task_run($run, 'job') . ", '1')", qr/cannot adopt a run.*Its status is succeeded/s, 'one that succeeded adopts nothing');
refused('SELECT weir.adopt(' . task_run($run, 'job') . ", '$_')", qr/not an id of a run of kind databricks_job.*Give the run ID, a number/s, "'$_' is no run of a job") foreach ('..', 'nonsense', '12/13', '12345678901234567890');
refused('SELECT weir.adopt(' . task_run($run, 'after') . ", '1')", qr/of kind sql cannot adopt a run/, 'nor does a SQL task');
refused("SELECT weir.adopt(0, '1')", qr/task run 0 does not exist/, 'nor what is not there');
refused('SELECT weir.resolve(' . task_run($run, 'job') . ", 'maybe')", qr/unknown decision "maybe".*succeeded, failed, send_again/s, 'an unknown decision');
refused("SELECT weir.create_pipeline('wrong', '{\"tasks\": [{\"name\": \"a\", \"kind\": \"sql\", \"spec\": {\"sql\": \"SELECT 1\"}, \"on_uncertain\": \"ask\"}]}')",
	qr/does not fit a task of kind sql.*on_uncertain/s, 'a SQL task is never uncertain');

$node->stop;
done_testing();
