# The machine of the database sleeps for eight hours (all processes of the
# server are stopped, then its clocks go on) while runs end, fail, vanish or go
# on in their engines.  When it is awake, tokens have expired, connections are
# dead and timeouts have passed: the engines are asked before anything is said.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirClock;
use WeirEveryKind;
use WeirTest;

plan skip_all => $_ foreach WeirClock::missing();
my $clock = WeirClock->new;
my $node = weir_node('asleep', start => 0, conf => "weir.cancel_grace = '20s'\n");
$clock->start($node, CLOCK_SHIFT_ASLEEP => 1);
$node->safe_psql('postgres', 'CREATE EXTENSION weir');
my %cloud = (here => weir_cloud(undef, speed => 10), gone => weir_cloud(undef, speed => 10));
my $every = WeirEveryKind->new($node, %cloud);
my @kinds = $every->kinds;
my %kinds = %WeirEveryKind::kinds;

sub value { return $every->value(@_) }
sub of { return $every->of(@_) }

# The postmaster, which is stopped first, and all it has started.
my @asleep;
sub fall_asleep
{
	my $postmaster = (split /\n/, PostgreSQL::Test::Utils::slurp_file($node->data_dir . '/postmaster.pid'))[0];
	kill('STOP', $postmaster) == 1 or die "kill: $!";
	push @asleep, $postmaster;
	foreach my $stat (glob '/proc/[0-9]*/stat')
	{
		open(my $stream, '<', $stat) or next;
		my ($pid, $parent) = (<$stream> // '') =~ /^(\d+) \(.*\) \S (\d+)/ or next;
		push @asleep, $pid if $parent == $postmaster && kill('STOP', $pid) == 1;
	}
	return;
}
sub wake_up { kill('CONT', $_) foreach splice(@asleep); return }
END { my $status = $?; wake_up(); $? = $status; }

$every->hold(do_work => JSON::PP::false);		# what was on its way is lost while it sleeps
$every->start('ended', 'ends', 'here');
$every->start('failed', 'fails', 'here');
$every->start('gone', 'goes_on', 'gone', without => ['webhook']);
$every->start('going', 'goes_on', 'here');
$every->start('late', 'ends', 'here', timeout => '10 minutes');
$every->start('late_run', 'ends', 'here', pipeline => { timeout => '10 minutes' });
$every->start('over', 'goes_on', 'here', timeout => '10 minutes', retry => { max_attempts => 1 }, without => [ 'http', 'webhook' ]);
my %id = %{ $every->known };
my %run = %{ $every->{run} };
fall_asleep();

# --- meanwhile
$every->let_end('ended', 'failed', 'late', 'late_run');
$cloud{gone}->reset;
$cloud{$_}->config(revoke_tokens => JSON::PP::true) foreach 'here', 'gone';
my %since = map { $_ => ($cloud{$_}->ledger(limit => 1)->[-1] // { seq => 0 })->{seq} } 'here', 'gone';
$clock->set(8 * 3600);
wake_up();

# --- what the log says
is(wait_for_run($node, $run{ended}), 'succeeded', 'what ended well has succeeded');
is(wait_for_run($node, $run{$_}), 'succeeded', "$_: also what would have been too late, had anybody looked")
  or diag(value("SELECT task_name, status, error_message FROM weir.task_run WHERE run_id = $run{$_}")) foreach 'late', 'late_run';
is(wait_for_run($node, $run{$_}), 'failed', "$_: has failed") foreach ('failed', 'gone', 'over');
foreach my $kind (@kinds)
{
	is(of($_, $kind, "t.status || ' ' || t.attempt_no || ' ' || (t.external_run_id = '$id{\"$_ $kind\"}')"), 'succeeded 1 true', "$kind: $_") foreach 'ended', 'late', 'late_run';
	like(of('failed', $kind, 't.error_message'), $kinds{$kind}{why}, "$kind: why it failed");
	next if $kind eq 'webhook';
	is(of('gone', $kind, "t.status || ' ' || t.attempt_no || ' ' || a.error_code"), 'failed 1 outcome_unknown', "$kind: gone, and not tried again");
	next if $kind eq 'http';
	is(of('over', $kind, "t.status || ' ' || t.attempt_no"), 'timed_out 1', "$kind: what goes on is cancelled when its time is over");
}
is(value("SELECT count(*) FROM weir.task_run WHERE run_id = $run{going} AND status = 'running'"), scalar @kinds, 'what has no timeout goes on');
is($every->begun($since{here}), value("SELECT count(*) FROM weir.attempt WHERE run_id = $run{failed} AND attempt_no > 1"), 'nothing was begun but what was tried again because it had failed');
is($cloud{$_}->requests('entra.token', since => $since{$_}), 2, "$_: one token was fetched for each service") foreach sort keys %since;
value("SELECT weir.cancel($run{going})");
is(wait_for_run($node, $run{going}), 'cancelled', 'what goes on can be cancelled');
# --- a statement that nobody asks for may be dropped after a quarter of an hour, so it is asked for, although its connection
# would have a whole hour pass, as it may since the pipeline was defined
my $here = $cloud{here};
value("SELECT weir.create_secret('patience', 'dapi-local');
	SELECT weir.create_connection('patient', 'databricks', '" . $here->address . "/dbx', '{\"type\": \"pat\", \"token\": \"patience\"}');
	SELECT weir.create_pipeline('patient', '{\"tasks\": [{\"name\": \"a\", \"kind\": \"databricks_sql\", \"connection\": \"patient\", \"spec\": {\"warehouse_id\": \"wh1\", \"statement\": \"SELECT 1\"}}]}');
	SELECT weir.alter_connection('patient', options => '{\"poll\": {\"min\": 3600, \"max\": 3600}}')");
my $patient = weir_trigger($node, 'patient');
wait_until($node, 'the statement has an id', "SELECT count(*) = 1 FROM weir.task_run WHERE run_id = $patient AND external_run_id IS NOT NULL");
my $statement = value("SELECT external_run_id FROM weir.task_run WHERE run_id = $patient");
is($here->requests('databricks.statement', statement_id => $statement), 0, 'a statement that is not asked for');
fall_asleep();
$clock->set(8 * 3600 + 700);
wake_up();
# what it waits by stood still meanwhile, so something has to have the conductor look at the clock
value("SELECT weir.create_pipeline('other', '{\"tasks\": [{\"name\": \"a\", \"kind\": \"noop\"}]}'); SELECT weir.trigger('other')");
$here->wait(operation => 'databricks.statement', statement_id => $statement, timeout_ms => 500 * $PostgreSQL::Test::Utils::timeout_default);
is($here->requests('databricks.statement', statement_id => $statement), 1, 'is asked for when eleven minutes have passed');
is(wait_for_run($node, $patient), 'succeeded', 'and has ended');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|already had an outcome/, 'nothing died of itself');

$node->stop;
done_testing();
