# The conductor is away while runs end, fail, vanish or go on in their engines:
# when it is back it asks them before it says anything, and starts nothing anew.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirEveryKind;
use WeirTest;

# shorter than the pause between two looks at what has been going on for a day
my $node = weir_node('away', conf => "weir.cancel_grace = '20s'\n");
my %cloud = (here => weir_cloud(undef, speed => 10), gone => weir_cloud(undef, speed => 10));
my $every = WeirEveryKind->new($node, %cloud);
my @kinds = $every->kinds;
my %kinds = %WeirEveryKind::kinds;

sub value { return $every->value(@_) }
sub of { return $every->of(@_) }

# Nobody is told how it goes; then nobody is there to be told.
$every->hold;
my %run = (ended => $every->start('ended', 'ends', 'here'), failed => $every->start('failed', 'fails', 'here'),
	gone => $every->start('gone', 'goes_on', 'gone', without => ['webhook']),		# whose message may always still come
	going => $every->start('going', 'goes_on', 'here'), late => $every->start('late', 'ends', 'here', timeout => '10 minutes'));
my %id = %{ $every->known };
# The timeout of "late" has passed, and those of "gone" were begun yesterday: that they are not there is not because they are new.
value("UPDATE weir.attempt SET intended_at = intended_at - interval '1 day', started_at = started_at - interval '1 day', "
	. "deadline = deadline - interval '1 day', task_deadline = task_deadline - interval '1 day', kind_state = kind_state || CASE WHEN kind_state ? 'started_ms' THEN jsonb_build_object('started_ms', (kind_state->>'started_ms')::bigint - 86400000) ELSE '{}' END WHERE run_id IN ($run{gone}, $run{late})");
$node->stop('immediate');

# --- meanwhile
$every->let_end('ended', 'failed', 'late');
$cloud{gone}->reset;
my $since = $cloud{here}->ledger(limit => 1)->[-1]{seq};
$node->start;

# --- what the log says
is(wait_for_run($node, $run{ended}), 'succeeded', 'what ended well has succeeded');
is(wait_for_run($node, $run{late}), 'succeeded', 'also what would have been too late, had anybody looked')
  or diag(value("SELECT task_name, status, error_message FROM weir.task_run WHERE run_id = $run{late}"));
is(wait_for_run($node, $run{$_}), 'failed', "$_: has failed") foreach ('failed', 'gone');
foreach my $kind (@kinds)
{
	is(of('ended', $kind, "t.status || ' ' || t.attempt_no || ' ' || (t.external_run_id = '$id{\"ended $kind\"}')"), 'succeeded 1 true', "$kind: ended");
	is(of('failed', $kind, "t.status || ' ' || t.attempt_no"), of('failed', $kind, "'failed ' || CASE WHEN a.failure_type = 'system' AND t.attempt_no > 1 THEN t.attempt_no ELSE 1 END"), "$kind: failed");
	like(of('failed', $kind, 't.error_message'), $kinds{$kind}{why}, "$kind: why");
	next if $kind eq 'webhook';
	is(of('gone', $kind, "t.status || ' ' || t.attempt_no || ' ' || a.error_code"), 'failed 1 outcome_unknown', "$kind: gone, and not tried again");
	like(of('gone', $kind, 't.error_message'), qr/\Q$id{"gone $kind"}\E.*(not known|not there|no longer|does not exist)|(not known|not there|no longer|does not exist).*\Q$id{"gone $kind"}\E/, "$kind: says which run is gone");
}
wait_until($node, 'those that go on have been asked', "SELECT count(*) = " . @kinds . " FROM weir.task_run WHERE run_id = $run{going} AND status = 'running'");
foreach my $kind (grep { $_ ne 'webhook' } @kinds)
{
	my $asked = $cloud{here}->wait(operation => $kinds{$kind}{asked}, since => $since, timeout_ms => 60000);
	ok(@$asked > 0, "$kind: asked");
}
is($every->begun($since), value("SELECT count(*) FROM weir.attempt WHERE run_id = $run{failed} AND attempt_no > 1"), 'nothing was begun but what was tried again because it had failed');
value("SELECT weir.cancel($run{going})");
is(wait_for_run($node, $run{going}), 'cancelled', 'what goes on can be cancelled');
foreach my $kind (grep { $_ ne 'webhook' } @kinds)
{
	is(of('going', $kind, "t.status || ' ' || (t.external_run_id = '$id{\"going $kind\"}')"), 'cancelled true', "$kind: went on");
}
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|already had an outcome/, 'nothing died of itself');

$node->stop;
done_testing();
