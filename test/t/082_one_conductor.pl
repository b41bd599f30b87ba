# One conductor per database, and a lock that decides which: weir.conduct() is
# refused beside the conductor and beside another session, the conductor waits
# for a session, and whoever conducts no more, however it ended, leaves the
# database to the next.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('one');

sub value { return $node->safe_psql('postgres', $_[0]) }
sub close_gate { return value("BEGIN; SELECT pg_advisory_xact_lock(1); PREPARE TRANSACTION 'gate'") }
sub open_gate { return value("ROLLBACK PREPARED 'gate'") }
sub enable { my ($how) = @_; value("ALTER SYSTEM SET weir.enabled = $how"); return value('SELECT pg_reload_conf()') }

# The conductor's lock: who has it, or waits for it.
my $lock = "FROM pg_locks l JOIN pg_stat_activity s USING (pid) WHERE l.locktype = 'advisory' AND l.objsubid = 119";
sub holds { my ($what, $who, $granted) = @_; return ok(wait_until($node, $what, "SELECT count(*) = 1 $lock AND $who AND l.granted = $granted"), $what) }
sub nobody_conducts { return ok(wait_until($node, 'nobody conducts', "SELECT count(*) = 0 $lock"), $_[0]) }
my $conductor = "s.backend_type = 'weir conductor'";
my $session = "s.backend_type = 'client backend'";

sub refused
{
	my ($what) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nCALL weir.conduct()");
	isnt($status, 0, "$what: another session may not conduct");
	like($err, qr/ERROR: +55006: another process already conducts this database/, "$what: the error says why");
	return like($err, qr/HINT: +Runs move forward without weir\.conduct\(\)/, "$what: the hint what to do");
}

# A session that conducts and stays.
sub conducting
{
	my %session = (in => "CALL weir.conduct();\nSELECT 'conducted';\n", out => '', err => '');
	$session{psql} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$session{in}, '>', \$session{out}, '2>', \$session{err},
		IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default));
	$session{psql}->pump_nb;
	return \%session;
}

value(q{
	CREATE TABLE public.effect (run_id bigint);
	SELECT weir.create_pipeline('gated', '{"tasks": [{"name": "a", "kind": "sql",
		"spec": {"sql": "SELECT pg_advisory_xact_lock_shared(1); INSERT INTO public.effect VALUES ({{run.id}})"}}]}');
	SELECT weir.create_pipeline('quick', '{"tasks": [{"name": "a", "kind": "noop"}]}')});
sub waits_at_gate { my ($run) = @_; return wait_until($node, 'the task waits', q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid <> 119 AND NOT granted}) }
sub done_once
{
	my ($run, $what) = @_;
	is(wait_for_run($node, $run), 'succeeded', "$what: the run succeeds");
	is(value("SELECT count(*) FROM public.effect WHERE run_id = $run"), '1', "$what: its task was done once");
	return;
}

# --- beside the conductor
holds('the conductor conducts', $conductor, 'true');
refused('beside the conductor');

# --- a session conducts: other sessions are refused, the conductor waits
enable('off');
nobody_conducts('weir.enabled = off: the conductor leaves');
close_gate();
my $run = weir_trigger($node, 'gated');
my $first = conducting();
holds('a session conducts', $session, 'true');
waits_at_gate($run);
refused('beside a session');
enable('on');
holds('the conductor waits for it', $conductor, 'false');
holds('... which goes on', $session, 'true');
is(value("SELECT status FROM weir.attempt WHERE run_id = $run"), 'started', 'nobody else looked at what the session does');
open_gate();
done_once($run, 'conducted by a session');
is(value("SELECT count(*) FROM weir.attempt WHERE run_id = $run"), '1', 'in one attempt');

# --- it has ended, but the session is still there
$first->{psql}->pump until $first->{out} =~ /conducted/ || $first->{err} ne '';
is($first->{err}, '', 'the session conducted without an error');
holds('then the conductor conducts', $conductor, 'true');
is(wait_for_run($node, weir_trigger($node, 'quick')), 'succeeded', '... and runs move forward');
refused('after a session');
$first->{psql}->finish;

# --- a session that is terminated in the middle
enable('off');
nobody_conducts('the conductor leaves again');
close_gate();
$run = weir_trigger($node, 'gated');
my $ended = conducting();
holds('a session conducts again', $session, 'true');
waits_at_gate($run);
value("SELECT pg_terminate_backend(pid) $lock");
nobody_conducts('it is terminated: nobody conducts');
open_gate();
value('CALL weir.conduct()');
done_once($run, 'another session goes on');
eval { $ended->{psql}->finish };

# --- every database has its own
value('CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION weir');
close_gate();
$run = weir_trigger($node, 'gated');
my $here = conducting();
holds('a session conducts one database', $session, 'true');
waits_at_gate($run);
is($node->psql('second', 'CALL weir.conduct()'), 0, 'meanwhile another conducts the other');
open_gate();
done_once($run, 'beside another database');
$here->{psql}->finish;

$node->stop;
done_testing();
