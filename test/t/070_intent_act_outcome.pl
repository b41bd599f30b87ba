# Invariants 1 to 3: nothing is asked of anybody before the intent is
# committed; an outcome and all that follows from it are one commit; a token
# belongs to one attempt, and what may have been sent is looked for before it
# is sent again.
#
# Triggers on weir's own tables note what is written in which transaction, hold
# it until the test lets it go, or refuse it.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('intent', allows_streaming => 1, conf => "shared_buffers = 32MB\n");
my $cloud = weir_cloud($node, speed => 10);
weir_story($node, $cloud);

sub value { return $node->safe_psql('postgres', $_[0]); }

# Tasks: [name, kind, connection, spec, further members]
sub pipeline
{
	my ($name, @tasks) = @_;
	my $json = join ', ', map {
		my ($task, $kind, $connection, $spec, $more) = @$_;
		qq({"name": "$task", "kind": "$kind", "spec": $spec)
		  . ($connection ? qq(, "connection": "$connection") : '')
		  . ($more ? ", $more" : '') . '}'
	} @tasks;
	value(qq{SELECT weir.create_pipeline('$name', '{"tasks": [$json]}'::jsonb)});
	return;
}

# What the cloud was asked, and what it began: "requests/started" of each
# operation, of entries after number $since.
my @starts = qw(adf.createRun databricks.run-now http.json);
sub asked
{
	my ($since, @operations) = @_;
	my $counts = $cloud->counts(since => $since);
	return join ' ', map { ($counts->{$_}{requests} // 0) . '/' . ($counts->{$_}{started} // 0) }
	  (@operations ? @operations : @starts);
}
sub now_in_ledger { my $entries = $cloud->ledger(limit => 1); return @$entries ? $entries->[0]{seq} : 0; }

value(qq{SELECT weir.create_connection('plain', 'http', '@{[ $cloud->address ]}/http', '{"type": "none"}'::jsonb);
	SELECT weir.create_connection('adf_slow', 'adf', c.base_url, c.auth, c.options || '{"settle_seconds": 20}')
	FROM weir.connection c WHERE name = 'adf_dev';
	CREATE TABLE public.landed (run_id bigint NOT NULL)});
my $adf = [ 'adf', 'adf_pipeline', 'adf_dev', '{"pipeline": "wait", "parameters": {"seconds": 1}}' ];
my $job = [ 'job', 'databricks_job', 'dbx_dev', '{"job_id": 102, "job_parameters": {"seconds": 1}}' ];
my $post = [ 'post', 'http', 'plain', '{"method": "POST", "path": "/json/effect", "body": {"n": 1}}' ];
my $sql = [ 'sql', 'sql', undef, '{"sql": "INSERT INTO public.landed SELECT {{run.id}}"}' ];
pipeline('everything', $adf, $job, $post, $sql);
pipeline('adf_alone', $adf);
pipeline('adf_slow', [ 'adf', 'adf_pipeline', 'adf_slow', $adf->[3] ]);
pipeline('job_alone', $job);
pipeline('post_alone', $post);
pipeline('failing_job', [ 'job', 'databricks_job', 'dbx_dev', '{"job_id": 103}' ]);
pipeline('job_anew', [ 'job', 'databricks_job', 'dbx_dev', '{"job_id": 103, "repair": false}' ]);

# Until so many attempts of a run have ended, and the run.
sub wait_for_attempts
{
	my ($run_id, $attempts) = @_;
	wait_until($node, "run $run_id had $attempts attempts",
		"SELECT count(*) = $attempts FROM weir.attempt WHERE run_id = $run_id AND ended_at IS NOT NULL");
	return wait_for_run($node, $run_id);
}

# --- 1. Intent, then act

# The first run signs in and leaves connections open: from now on a request
# would be on its way the moment it is made.
is(wait_for_run($node, weir_trigger($node, 'everything')), 'succeeded', 'a run of every kind');

# A synchronous standby that does not exist holds the conductor's commit.
sub standby
{
	my ($names) = @_;
	my $log = -s $node->logfile;
	value("ALTER SYSTEM SET synchronous_standby_names = '$names'");
	value('SELECT pg_reload_conf()');
	$node->wait_for_log(qr/"synchronous_standby_names" changed to "$names"/, $log);
	value('CHECKPOINT');		# the checkpointer has seen it too
	return;
}

sub conductor_waits
{
	my ($event) = @_;
	return wait_until($node, "the conductor waits: $event",
		"SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'weir conductor' AND wait_event = '$event'");
}

standby('nobody');
my $since = now_in_ledger();
my $run = value("SET synchronous_commit = local; SELECT weir.trigger('everything')");
conductor_waits('SyncRep');
is(value("SELECT count(*) FROM weir.attempt WHERE run_id = $run"), 0, 'the intents are not committed yet');
is(asked($since), '0/0 0/0 0/0', 'and nobody was asked for anything');
is(value("SELECT count(*) FROM public.landed WHERE run_id = $run"), 0, 'nor did a SQL worker begin');
standby('');
is(wait_for_run($node, $run), 'succeeded', 'committed, they are acted upon');
is(asked($since), '1/1 1/1 1/1', 'each once');

# What a kind found out is written before the next step builds on it: here
# the repair that a lost answer would have to be recognised by.
$run = weir_trigger($node, 'failing_job');
is(wait_for_run($node, $run), 'failed', 'the job fails');
value(q{
	CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS
		$$BEGIN PERFORM pg_advisory_xact_lock_shared(70); RETURN NULL; END$$;
	CREATE TRIGGER hold AFTER UPDATE ON weir.attempt FOR EACH ROW
		WHEN (NEW.kind_state->>'mode' = 'repair') EXECUTE FUNCTION public.hold()});
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(70)');
$since = now_in_ledger();
value("SELECT weir.repair($run)");
conductor_waits('advisory');
is(asked($since, 'databricks.repair'), '0/0', 'no repair before it is known which one');
$holder->query_safe('SELECT pg_advisory_unlock(70)');
$holder->quit;
is(wait_for_attempts($run, 2), 'failed', 'repaired in vain');
value('DROP TRIGGER hold ON weir.attempt');

# --- 2. An outcome is one commit with all that follows

# A journal of what changed in which transaction.
value(q{
	CREATE TABLE public.journal (xid bigint DEFAULT txid_current(), run_id bigint, what text);
	CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$DECLARE
		n jsonb := to_jsonb(NEW);
		name text := n->>'task_name';
		id bigint := n->>'run_id';
	BEGIN
		IF TG_TABLE_NAME = 'attempt' THEN
			name := (SELECT t.task_name FROM weir.task_run t WHERE t.task_run_id = NEW.task_run_id);
		ELSIF TG_TABLE_NAME = 'pipeline_state' THEN
			id := n->>'last_run_id';
			n := jsonb_build_object('status', NEW.next_load_status, 'origin', NEW.origin_row_audit_id = id, 'last', NEW.last_success_run_id = id);
			n := jsonb_build_object('status', concat_ws(' ', n->>'status', CASE WHEN (n->>'origin')::boolean THEN 'origin' END,
				CASE WHEN (n->>'last')::boolean THEN 'last' END));
		END IF;
		INSERT INTO public.journal (run_id, what)
			VALUES (id, concat_ws(' ', TG_TABLE_NAME, coalesce(name, n->>'component', n->>'activity'), n->>'status', n->>'count_type'));
		RETURN NULL; END$$;
	CREATE TRIGGER note AFTER UPDATE OF ended_at ON weir.attempt FOR EACH ROW EXECUTE FUNCTION public.note();
	CREATE TRIGGER note AFTER UPDATE ON weir.task_run FOR EACH ROW
		WHEN (NEW.status <> 'running' AND NEW.status <> OLD.status) EXECUTE FUNCTION public.note();
	CREATE TRIGGER note AFTER UPDATE ON weir.run FOR EACH ROW WHEN (OLD.status = 'running') EXECUTE FUNCTION public.note();
	CREATE TRIGGER note AFTER UPDATE ON weir.pipeline_state FOR EACH ROW
		WHEN (NEW.last_run_id = OLD.last_run_id) EXECUTE FUNCTION public.note();
	CREATE TRIGGER note AFTER INSERT ON weir.row_count FOR EACH ROW EXECUTE FUNCTION public.note();
	CREATE TRIGGER note AFTER INSERT ON weir.activity FOR EACH ROW EXECUTE FUNCTION public.note();
	CREATE TRIGGER note AFTER INSERT ON weir.error FOR EACH ROW EXECUTE FUNCTION public.note();
	CREATE TRIGGER note AFTER INSERT ON public.landed FOR EACH ROW EXECUTE FUNCTION public.note()});

# Everything in the transaction of a task's outcome.
sub with_outcome
{
	my ($run_id, $task) = @_;
	return value(qq{SELECT string_agg(what, ', ' ORDER BY what COLLATE "C") FROM public.journal WHERE run_id = $run_id
		AND xid = (SELECT xid FROM public.journal WHERE run_id = $run_id AND what LIKE 'attempt $task %')});
}

my $copy = [ 'copy', 'adf_pipeline', 'adf_dev',
	'{"pipeline": "copy_flights", "parameters": {"row_audit_id": "{{row_audit_id}}"}}', '"phase": "land"' ];
pipeline('one_commit', $copy,
	[ 'land', @$sql[ 1 .. 3 ], '"phase": "land", "depends_on": ["copy"]' ],
	[ 'break', 'sql', undef, '{"sql": "SELECT 1 / ((SELECT count(*) FROM public.landed) - 1)"}',
		'"phase": "transform", "depends_on": ["land"]' ],
	[ 'after', 'noop', undef, '{}', '"phase": "publish", "depends_on": ["break"]' ]);
value('TRUNCATE public.landed');
$run = weir_trigger($node, 'one_commit');
is(wait_for_run($node, $run), 'failed', 'a run that fails after landing');
is(with_outcome($run, 'copy'), 'activity copy/Copy succeeded, activity copy/Lookup succeeded, attempt copy succeeded, '
	  . 'row_count copy Insert, row_count copy Select, task_run copy succeeded, task_run land ready',
	'outcome of an engine: activities, counts, successor');
is(with_outcome($run, 'land'), 'attempt land succeeded, landed, row_count land Insert, task_run break ready, task_run land succeeded',
	'outcome of SQL: its rows, count, successor');
is(with_outcome($run, 'break'), 'attempt break failed, error break, pipeline_state D origin, run failed, task_run after blocked, task_run break failed',
	'failure: error, blocked successor, status of the run, D and the origin');

value('INSERT INTO public.landed VALUES (0)');
my $again = weir_trigger($node, 'one_commit');
is(wait_for_run($node, $again), 'succeeded', 'resumed after landing');
is(with_outcome($again, 'after'), 'attempt after succeeded, pipeline_state P last, run succeeded, task_run after succeeded',
	'last outcome: the run has succeeded, and what the next start must do');
value(join ';', map { "DROP TRIGGER note ON $_" } qw(weir.attempt weir.task_run weir.run weir.pipeline_state weir.row_count
	weir.activity weir.error public.landed));

# When the last thing that follows cannot be written, the first is not either.
value(q{
	CREATE SEQUENCE public.refused;
	CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
		IF nextval('public.refused') = 1 THEN RAISE 'refused by the test'; END IF; RETURN NULL; END$$;
	CREATE TRIGGER refuse AFTER UPDATE ON weir.pipeline_state FOR EACH ROW
		WHEN (NEW.last_success_run_id IS DISTINCT FROM OLD.last_success_run_id) EXECUTE FUNCTION public.refuse()});
$since = now_in_ledger();
$run = weir_trigger($node, 'adf_alone');
is(wait_for_run($node, $run), 'succeeded', 'a refused outcome is found out again');
is(value('SELECT last_value FROM public.refused'), 2, 'it was refused');
is(asked($since, 'adf.createRun'), '1/1', 'and the pipeline was run once');
is(value("SELECT string_agg(status, ' ') FROM weir.attempt WHERE run_id = $run"), 'succeeded', 'in one attempt');

pipeline('sql_alone', $sql);
value(q{ALTER SEQUENCE public.refused RESTART; TRUNCATE public.landed});
$run = weir_trigger($node, 'sql_alone');
is(wait_for_run($node, $run), 'failed', 'a SQL task whose outcome is refused has failed');
is(value('SELECT last_value FROM public.refused'), 1, 'it was refused');
is(value('SELECT count(*) FROM public.landed'), 0, 'and its rows went with the outcome');
value('DROP TRIGGER refuse ON weir.pipeline_state');

# --- 3. Tokens and reconciliation

sub tokens
{
	my ($from, $operation, $field) = @_;
	return map { $_->{$field} } @{ $cloud->ledger(since => $from, operation => $operation) };
}
sub tokens_in_log { return split /\n/, value("SELECT token FROM weir.attempt WHERE run_id IN ($_[0]) ORDER BY intended_at"); }
sub unique { my %seen = map { $_ => 1 } @_; return scalar keys %seen; }

$since = now_in_ledger();
$run = weir_trigger($node, 'job_anew');
is(wait_for_run($node, $run), 'failed', 'the job fails');
value("SELECT weir.repair($run)");
is(wait_for_attempts($run, 2), 'failed', 'and again');
is(asked($since, 'databricks.run-now'), '2/2', 'a new attempt begins a job run of its own');
$again = weir_trigger($node, 'job_anew');
is(wait_for_run($node, $again), 'failed', 'and so does another run of the task');
my @sent = tokens($since, 'databricks.run-now', 'idempotency_token');
is(unique(@sent), scalar @sent, 'no two attempts share a token');
is_deeply(\@sent, [ tokens_in_log("$run, $again") ], 'what was sent is what was intended');

# Intents of SQL tasks do not wait for the disk.  Outcomes do, whoever writes
# them and whatever shares their transaction: what was seen is there after a
# crash.  The WAL writer is held, so that nothing else brings them there.
sub crash_when
{
	my ($what, $sql) = @_;
	my $log = -s $node->logfile;
	my $writer = backend_pid($node, 'walwriter');

	kill('STOP', $writer) == 1 or die "kill $writer: $!";
	my $run_id = weir_trigger($node, $what);
	wait_until($node, "$what: before the crash", $sql =~ s/RUN/$run_id/gr);
	my $before = value('SELECT clock_timestamp()');
	my $ended = "SELECT string_agg(concat_ws(' ', attempt_no, status, ended_at), ', ' ORDER BY task_run_id) FROM weir.attempt WHERE run_id = $run_id AND ended_at <= '$before'";
	my $seen = value($ended);
	kill('KILL', backend_pid($node, 'weir conductor')) == 1 or die "kill: $!";
	$node->wait_for_log(qr/terminating any other active server processes/, $log);
	kill('CONT', $writer);
	wait_for_restart($node, $log);
	is(value($ended), $seen, "$what: what was seen is there after a crash");
	return $run_id;
}

pipeline('one_sql', $sql);
$run = crash_when('one_sql', "SELECT status = 'succeeded' FROM weir.run WHERE run_id = RUN");
is(wait_for_run($node, $run), 'succeeded', 'a SQL task, once');
pipeline('post_first', $post, [ 'sql', 'sql', undef, '{"sql": "SELECT pg_advisory_xact_lock_shared(71)"}', '"depends_on": ["post"]' ]);
$holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(71)');
$since = now_in_ledger();
$run = crash_when('post_first', q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = 71 AND NOT granted});
eval { $holder->quit };
is(wait_for_run($node, $run), 'succeeded', 'an answer that was read is not forgotten for the intent that follows it');
is(asked($since, 'http.json'), '1/1', '... nor asked for again');

# From here on a commit that does not insist on the disk would be lost.
$node->append_conf('postgresql.conf', "synchronous_commit = off\n");
$node->restart;
is(wait_for_run($node, weir_trigger($node, 'everything')), 'succeeded', 'synchronous_commit is off');

# Trigger a run whose first request for $operation does not get through yet,
# and crash; returns the run and where its part of the ledger begins.  The WAL
# writer is held and buffers are many, so that nothing reaches the disk by chance.
sub crash_while_asking
{
	my ($pipeline, $operation, %fault) = @_;
	my $from = now_in_ledger();
	my $log = -s $node->logfile;
	my $writer = backend_pid($node, 'walwriter');

	$cloud->add_fault(operation => $operation, fault => 'hold', %fault);
	kill('STOP', $writer) == 1 or die "kill $writer: $!";
	my $run_id = $node->safe_psql('postgres', "SET synchronous_commit = on; SELECT weir.trigger('$pipeline')");
	$cloud->wait(operation => $operation, since => $from, timeout_ms => 30000);
	kill('KILL', backend_pid($node, 'weir conductor')) == 1 or die "kill: $!";
	$node->wait_for_log(qr/terminating any other active server processes/, $log);
	kill('CONT', $writer);
	wait_for_restart($node, $log);
	return ($run_id, $from);
}

# ADF knows no tokens: the run is looked for, and found although it arrives late.
($run, $since) = crash_while_asking('adf_slow', 'adf.createRun');
is_deeply([ tokens_in_log($run) ], [ tokens($since, 'adf.createRun', 'weir_token') ], 'the intent has survived the crash');
$cloud->wait(operation => 'adf.queryRuns', since => $since, timeout_ms => 30000);
is(asked($since), '1/0 0/0 0/0', 'ADF: looked for before anything is sent again');
$cloud->clear_faults;
is(wait_for_run($node, $run), 'succeeded', 'ADF: the request that arrived late is found');
is(asked($since), '1/1 0/0 0/0', 'ADF: asked once, begun once');

# ... and only what is not there in time is sent again, under the same token.
($run, $since) = crash_while_asking('adf_alone', 'adf.createRun', do_work => JSON::PP::false);
is(wait_for_run($node, $run), 'succeeded', 'ADF: a request that got lost is made up for');
my @operations = map { $_->{operation} } @{ $cloud->ledger(since => $since, operation => 'adf.*') };
like(join(' ', grep { /createRun|queryRuns/ } @operations), qr/^adf.createRun( adf.queryRuns){2,} adf.createRun$/,
	'ADF: sent again after it was looked for twice');
is(unique(tokens($since, 'adf.createRun', 'weir_token'), tokens_in_log($run)), 1, 'ADF: with the same token');

# Databricks recognises a token it has seen.
($run, $since) = crash_while_asking('job_alone', 'databricks.run-now');
$cloud->wait(operation => 'databricks.run-now', since => $since, started => 'true', timeout_ms => 30000);
$cloud->clear_faults;
is(wait_for_run($node, $run), 'succeeded', 'Databricks: sent again');
is(asked($since), '0/0 2/1 0/0', 'Databricks: two requests, one job run');
is(unique(tokens($since, 'databricks.run-now', 'idempotency_token'), tokens_in_log($run)), 1, 'Databricks: with the same token');

# Nobody can say what became of a plain POST: that is for a person to decide.
($run, $since) = crash_while_asking('post_alone', 'http.json');
is(wait_for_run($node, $run), 'failed', 'POST: not known, so failed');
$cloud->clear_faults;
is(value("SELECT string_agg(error_code, ' ') FROM weir.attempt WHERE run_id = $run"), 'outcome_unknown', 'POST: and says so');
is((split /\//, asked($since, 'http.json'))[0], 1, 'POST: not sent again');

# An attempt that ran out of time is tried again when its work is known to have
# ended, not while it may be going on.
value("ALTER SYSTEM SET weir.cancel_grace = '200ms'; SELECT pg_reload_conf()");
pipeline('too_long', [ 'job', 'databricks_job', 'dbx_dev', '{"job_id": 102, "job_parameters": {"seconds": 3000}}',
		'"timeout": "1 second", "retry": {"max_attempts": 2, "initial_delay": "10 milliseconds"}' ]);
pipeline('job_for_long', [ 'job', 'databricks_job', 'dbx_dev', '{"job_id": 102, "job_parameters": {"seconds": 3000}}' ]);
$cloud->add_fault(operation => 'databricks.cancel', fault => 'status', status => 503, times => undef);
$since = now_in_ledger();
$run = weir_trigger($node, 'too_long');
is(wait_for_run($node, $run), 'failed', 'the cancel of an attempt out of time is not confirmed');
is(asked($since, 'databricks.run-now'), '1/1', 'so there is no second one beside it');
$cloud->clear_faults;
value("ALTER SYSTEM RESET weir.cancel_grace; SELECT pg_reload_conf()");

# Cancelled before the answer was read: asked again with the same token, so
# that the job run can be cancelled too.
$cloud->add_fault(operation => 'databricks.run-now', fault => 'reset_after', delay_ms => 1500);
$since = now_in_ledger();
$run = weir_trigger($node, 'job_for_long');
$cloud->wait(operation => 'databricks.run-now', since => $since, started => 'true', timeout_ms => 30000);
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'a run is cancelled while its first request is on its way');
is(asked($since, 'databricks.run-now'), '2/1', 'what it began is looked for');
my ($begun) = grep { $_ && $_->{run_id} } @{ $cloud->ledger(since => $since, operation => 'databricks.cancel') };
ok($begun, 'and cancelled');

unlike(slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;
done_testing();
