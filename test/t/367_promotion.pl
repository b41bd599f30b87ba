# A standby is promoted while runs of every kind are in flight: it asks the
# engines what became of them and starts nothing anew.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirEveryKind;
use WeirTest;

my $primary = weir_node('primary', allows_streaming => 1, conf => "weir.cancel_grace = '20s'\n");
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
# What the primary has said to an engine is on the standby before.
$primary->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = '*'");
$primary->reload;
wait_until($primary, 'the standby is synchronous', "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'");

my %cloud = (here => weir_cloud(undef, speed => 10), gone => weir_cloud(undef, speed => 10));
my $every = WeirEveryKind->new($primary, %cloud);
my @kinds = $every->kinds;
my %kinds = %WeirEveryKind::kinds;

sub of { return $every->of(@_) }

$every->hold;
$every->start('ended', 'ends', 'here');
$every->start('failed', 'fails', 'here');
$every->start('going', 'goes_on', 'here');
my %id = %{ $every->known };
# In "starting" the primary dies before it has read an answer to any start.
$cloud{here}->add_fault(operation => $_, fault => 'delay', delay_ms => 600000, times => undef) foreach 'databricks.run-now', 'databricks.submit', 'adf.createRun', 'fabric.run';
my @sure = ('databricks_job', 'databricks_notebook', 'adf_pipeline', 'fabric_item');
my %sure = map { $_ => 1 } @sure;
my $before = $cloud{here}->ledger(limit => 1)->[-1]{seq};
$every->start('starting', 'ends', 'here', without => [ grep { !$sure{$_} } @kinds ]);
$cloud{here}->wait(operation => $_, since => $before, started => 'true', fault => 'delay', timeout_ms => 60000) foreach 'databricks.run-now', 'databricks.submit', 'adf.createRun', 'fabric.run';
my %run = %{ $every->{run} };
$primary->stop('immediate');

# --- meanwhile
$every->let_end('ended', 'failed');
my $since = $cloud{here}->ledger(limit => 1)->[-1]{seq};
$standby->promote;
$every->node($standby);

is(wait_for_run($standby, $run{$_}), 'succeeded', "$_: has succeeded")
  or diag($every->value("SELECT task_name, status, error_message FROM weir.task_run WHERE run_id = $run{$_}")) foreach 'ended', 'starting';
is(wait_for_run($standby, $run{failed}), 'failed', 'failed: has failed');
foreach my $kind (@kinds)
{
	is(of('ended', $kind, "t.status || ' ' || t.attempt_no || ' ' || (t.external_run_id = '$id{\"ended $kind\"}')"), 'succeeded 1 true', "$kind: ended");
	like(of('failed', $kind, 't.error_message'), $kinds{$kind}{why}, "$kind: why it failed");
	is(of('starting', $kind, "t.status || ' ' || t.attempt_no"), 'succeeded 1', "$kind: what was starting was found") if $sure{$kind};
}
my $again = $every->value("SELECT count(*) FROM weir.attempt WHERE run_id = $run{failed} AND attempt_no > 1");
is($cloud{here}->counts(operation => $_, since => $before, started => 'true', fault => 'delay')->{$_}{started} // 0, 1, "$_: begun once in starting") foreach 'databricks.run-now', 'databricks.submit', 'adf.createRun', 'fabric.run';
my %operation = map { $_->{started} => 1 } values %kinds;
my $begun = 0;
$begun += $cloud{here}->started($_, since => $since) foreach keys %operation;
is($begun, $again, 'nothing was begun but what was tried again because it had failed');
is($every->value("SELECT count(*) FROM weir.task_run WHERE run_id = $run{going} AND status = 'running'"), scalar @kinds, 'what goes on goes on');
$every->value("SELECT weir.cancel($run{going})");
is(wait_for_run($standby, $run{going}), 'cancelled', 'and can be cancelled');
foreach my $kind (grep { $_ ne 'webhook' } @kinds)
{
	is(of('going', $kind, "t.status || ' ' || (t.external_run_id = '$id{\"going $kind\"}')"), 'cancelled true', "$kind: went on");
}
unlike(PostgreSQL::Test::Utils::slurp_file($standby->logfile), qr/PANIC|illegal|already had an outcome/, 'nothing died of itself');
$standby->stop;
done_testing();
