# Much at once, and the ground taken away under it: a queue of ten thousand
# runs, thousands of runs of many pipelines, DROP DATABASE and DROP EXTENSION
# under running tasks, and weir.conduct() in the session of a superuser with
# tasks that would like to be superuser too.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('pressure');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub value { my ($sql, $dbname) = @_; return $node->safe_psql($dbname // 'postgres', $sql) }
sub define
{
	my ($name, $tasks, %more) = @_;
	return "SELECT weir.create_pipeline($name, " . literal($json->encode({ tasks => $tasks, %more })) . ');';
}
sub http { return { name => 'call', kind => 'http', connection => 'api', spec => { path => $_[0] } } }
sub sql { my ($name, $sql, %more) = @_; return { name => $name, kind => 'sql', spec => { sql => $sql }, %more } }
sub noop { my ($name, %more) = @_; return { name => $name, kind => 'noop', spec => {}, %more } }
sub processes { return value("SELECT count(*) FROM pg_stat_activity WHERE datname = '$_[0]' AND backend_type LIKE 'weir %'") }

sub other { return value("SELECT weir.trigger('other') AS run \\gset\nSELECT weir.wait(:run)", $_[0]) }

# Runs of a small pipeline, one after the other; returns how long one takes.
sub others
{
	my ($n, $what, $dbname) = @_;
	my $start = time;
	my @status = map { other($dbname) } (1 .. $n);
	is(join(' ', @status), join(' ', ('succeeded') x $n), $what);
	my $each = (time - $start) / $n;
	note(sprintf('%s: %.0f ms each', $what, $each * 1000));
	return $each;
}

value('CREATE TABLE done (run_id bigint, pipeline text)');
value(define("'other'", [ sql('a', 'SELECT 1'), noop('b', depends_on => ['a']) ]));
value(define("'queue'", [ sql('gate', 'SELECT pg_advisory_xact_lock_shared(1)'), sql('put', "INSERT INTO done VALUES ({{run.id}}, 'queue')", depends_on => ['gate']) ]));
value(define("'short'", [ noop('a'), noop('b', depends_on => ['a']) ]));

# --- more becomes ready, or is queued, in one transaction than fits into a note to the conductor
value(define("'fan'", [ sql('first', 'SELECT 1'), map { sql("m$_", 'SELECT 1', depends_on => ['first']) } (1 .. 400) ]));
is(wait_for_run($node, weir_trigger($node, 'fan')), 'succeeded', 'four hundred tasks become ready at once');
value("SELECT count(weir.create_pipeline('one_of_' || n, '{\"tasks\": [{\"name\": \"a\", \"kind\": \"noop\", \"spec\": {}}]}')) FROM generate_series(1, 400) n");
value("SELECT count(weir.trigger('one_of_' || n)) FROM generate_series(1, 400) n");
wait_until($node, 'four hundred pipelines are triggered at once',
	"SELECT count(*) = 400 FROM weir.run WHERE pipeline_name LIKE 'one!_of!_%' ESCAPE '!' AND status = 'succeeded'");

# --- ten thousand runs of one pipeline are queued
my $before = others(20, 'runs with nothing queued');
value("BEGIN; SELECT pg_advisory_xact_lock(1); PREPARE TRANSACTION 'gate'");
value("SELECT count(weir.trigger('queue')) FROM generate_series(1, 10000)");
wait_until($node, 'the first one is at the gate', "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
is(value("SELECT string_agg(status || ' ' || n, ', ' ORDER BY status) FROM (SELECT status, count(*) AS n FROM weir.run WHERE pipeline_name = 'queue' GROUP BY status) x"),
	'queued 9999, running 1', 'one runs, the others are queued');
my $during = others(20, 'runs while ten thousand are queued');
is(value("SELECT count(*) FROM weir.why('queue') WHERE waiting_for = 'run'"), '99', 'why shows the oldest hundred');
like(value("SELECT detail FROM weir.why((SELECT max(run_id) FROM weir.run WHERE pipeline_name = 'queue'))"), qr/has not ended and max_concurrent_runs is 1$/, 'why of the last one');

# --- and all of them are cancelled
is(value("SELECT count(*) FILTER (WHERE weir.cancel(run_id, 'too many')) FROM weir.run WHERE pipeline_name = 'queue' AND status = 'queued'"), '9999', 'cancel of all that are queued');
is(other(), 'succeeded', 'another run passes');
ok(wait_until($node, 'all are cancelled', "SELECT count(*) = 0 FROM weir.run WHERE pipeline_name = 'queue' AND status = 'queued'"), 'all are cancelled');
value("ROLLBACK PREPARED 'gate'");
my $first = value("SELECT min(run_id) FROM weir.run WHERE pipeline_name = 'queue'");
is(wait_for_run($node, $first), 'succeeded', 'the one that ran finishes');
is(value('SELECT count(*) FROM done'), '1', 'it alone did anything');
is(value("SELECT count(*) FROM weir.run r WHERE status = 'cancelled' AND pipeline_name = 'queue' AND NOT EXISTS (SELECT FROM weir.task_run t WHERE t.run_id = r.run_id)"), '9999', 'no cancelled run was begun');
is(value('SELECT count(*) FROM weir.request'), '0', 'no request is left');

# --- a long queue that is worked off, one by one
value("SELECT weir.pause_pipeline('short')");
value("SELECT count(weir.trigger('short')) FROM generate_series(1, 2000)");
my $start = time;
value("SELECT weir.resume_pipeline('short')");
ok(wait_until($node, 'all have run', "SELECT count(*) = 0 FROM weir.run WHERE pipeline_name = 'short' AND status IN ('queued', 'running')"), 'a queue of two thousand is worked off');
note(sprintf('two thousand queued runs, one at a time: %.1f s', time - $start));
is(value("SELECT count(*) FROM weir.run WHERE pipeline_name = 'short' AND status = 'succeeded'"), '2000', 'all succeeded');
is(value("SELECT count(*) FROM (SELECT started_at < lag(ended_at) OVER (ORDER BY run_id) AS is_early FROM weir.run WHERE pipeline_name = 'short') x WHERE is_early"), '0', 'in order, never two at once');

# --- many pipelines at once
value(define("'p' || n", [ noop('land'), sql('put', 'INSERT INTO done VALUES ({{run.id}}, {{pipeline.name}})', depends_on => ['land']), noop('end', depends_on => ['put']) ],
		max_concurrent_runs => 3) =~ s/;$/ FROM generate_series(1, 200) AS n;/r);
$start = time;
value("SELECT count(weir.trigger('p' || p)) FROM generate_series(1, 10) AS r, generate_series(1, 200) AS p");
ok(wait_until($node, 'all have run', "SELECT count(*) = 0 FROM weir.run WHERE status IN ('queued', 'running')"), 'two thousand runs of two hundred pipelines');
note(sprintf('two thousand runs: %.1f s', time - $start));
is(value("SELECT count(*) || ' ' || count(DISTINCT run_id) || ' ' || count(DISTINCT pipeline) FROM done WHERE pipeline LIKE 'p%'"), '2000 2000 200', 'each did its work once');
is(value("SELECT count(*) FROM weir.attempt WHERE attempt_no > 1 OR status <> 'succeeded'"), '0', 'at the first attempt');

# --- DROP DATABASE under a hundred runs
value('CREATE DATABASE doomed');
value("CREATE EXTENSION weir; SELECT weir.create_connection('api', 'http', '$address/http');", 'doomed');
value(define("'busy'", [ http('/delay/599801'), sql('sleep', 'SELECT pg_sleep(3600)') ], max_concurrent_runs => 1000), 'doomed');
value("SELECT count(weir.trigger('busy')) FROM generate_series(1, 100)", 'doomed');
is(scalar(@{ $cloud->wait(path => '/http/delay/599801', count => 100, timeout_ms => 1000 * $PostgreSQL::Test::Utils::timeout_default) }), 100, 'a hundred requests are not answered');
backend_pid($node, 'weir SQL worker', in => 'doomed');
value('DROP DATABASE doomed');
is(processes('doomed'), '0', 'DROP DATABASE under a hundred runs');
others(3, 'runs in another database after that');

# --- DROP EXTENSION under a request that is not answered
value('CREATE DATABASE bare');
value("CREATE EXTENSION weir; SELECT weir.create_connection('api', 'http', '$address/http');", 'bare');
value(define("'busy'", [ http('/delay/599802') ]), 'bare');
value("SELECT weir.trigger('busy')", 'bare');
is(scalar(@{ $cloud->wait(path => '/http/delay/599802', timeout_ms => 1000 * $PostgreSQL::Test::Utils::timeout_default) }), 1, 'a request is not answered');
value('DROP EXTENSION weir CASCADE', 'bare');
is(processes('bare'), '0', 'DROP EXTENSION under a request');
value('CREATE EXTENSION weir; ' . define("'other'", [ sql('a', 'SELECT 1') ]), 'bare');
others(3, 'runs after it was created again', 'bare');
is(scalar(@{ $cloud->ledger(path => '/http/delay/599802') }), 1, 'the request was not repeated');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|terminated by signal|illegal|deadlock detected/, 'nothing died');
$node->stop;

# --- weir.conduct() in the session of a superuser
$node = weir_node('conduct', conf => "shared_preload_libraries = ''\nweir.http_timeout = '5s'\n");
value(qq{
	CREATE ROLE loader LOGIN IN ROLE weir_admin;
	CREATE ROLE chief SUPERUSER LOGIN;
	CREATE TABLE landed (run_id bigint, what text);
	CREATE TABLE parent (id integer PRIMARY KEY);
	CREATE TABLE secret AS SELECT 'for chief only' AS what;
	GRANT ALL ON landed, parent TO loader;
	GRANT CREATE ON SCHEMA public TO loader;
	GRANT CREATE ON DATABASE postgres TO loader;
	SET ROLE loader;
	SELECT weir.create_connection('api', 'http', '$address/http');
	CREATE FUNCTION grab() RETURNS trigger LANGUAGE plpgsql AS \$\$ BEGIN
		INSERT INTO landed VALUES (0, 'trigger as ' || current_user);
		EXECUTE 'ALTER ROLE loader SUPERUSER'; RETURN NULL; END \$\$;
	CREATE TABLE trap (id integer);
	CREATE CONSTRAINT TRIGGER grab AFTER INSERT ON trap DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION grab();
	CREATE SCHEMA evil;
	CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS \$\$ BEGIN EXECUTE 'ALTER ROLE loader SUPERUSER'; RETURN now(); END \$\$;
	CREATE FUNCTION evil.count(bigint) RETURNS bigint LANGUAGE plpgsql AS \$\$ BEGIN EXECUTE 'ALTER ROLE loader SUPERUSER'; RETURN 1; END \$\$});

sub as_loader { return value("SET ROLE loader; $_[0]") }
as_loader(define("'calls'", [ http('/json/conduct'), sql('keep', "INSERT INTO landed VALUES ({{run.id}}, {{tasks.call.output.body.path}} || ' ' || current_user)", depends_on => ['call']) ]));
my $calls = weir_trigger($node, 'calls');
value('CALL weir.conduct()');
is(value("SELECT status FROM weir.run WHERE run_id = $calls"), 'succeeded', 'conduct: an HTTP task and what follows');
is(value("SELECT what FROM landed WHERE run_id = $calls"), '/http/json/conduct loader', 'conduct: as the owner');

my @escapes = (
	'RESET ROLE; SELECT what FROM secret',
	'RESET SESSION AUTHORIZATION; ALTER ROLE loader SUPERUSER',
	'SET SESSION AUTHORIZATION DEFAULT; ALTER ROLE loader SUPERUSER',
	'SET SESSION AUTHORIZATION chief; ALTER ROLE loader SUPERUSER',
	'SET ROLE chief; ALTER ROLE loader SUPERUSER',
	'SET LOCAL ROLE NONE; ALTER ROLE loader SUPERUSER',
	"SELECT set_config('role', 'none', true); ALTER ROLE loader SUPERUSER",
	"SELECT set_config('session_authorization', 'chief', false)",
	'COMMIT; ALTER ROLE loader SUPERUSER',
	'ROLLBACK; ALTER ROLE loader SUPERUSER',
	'SAVEPOINT a; ROLLBACK TO a; ALTER ROLE loader SUPERUSER',
	'DO $$ BEGIN COMMIT; END $$; ALTER ROLE loader SUPERUSER',
	'DO $$ BEGIN RESET ROLE; EXCEPTION WHEN OTHERS THEN NULL; END $$; ALTER ROLE loader SUPERUSER',
	'CALL weir.conduct()',
	"INSERT INTO trap VALUES (1); SET CONSTRAINTS ALL DEFERRED",
	'DECLARE c CURSOR WITH HOLD FOR SELECT 1',
	'SELECT what FROM secret',
	"COPY (SELECT 1) TO PROGRAM 'true'",
	'SET session_preload_libraries = evil; ALTER ROLE loader SUPERUSER',
	"UPDATE weir.task_run SET status = 'succeeded'");
my @runs;
# Most of them are refused when they run, those that are seen in the text already when they are defined.
my ($defined, $refusal) = (0, '');
foreach my $n (0 .. $#escapes)
{
	my $status = $node->psql('postgres', 'SET ROLE loader; ' . define("'escape $n'", [ sql('try', "INSERT INTO landed VALUES ({{run.id}}, 'escaped'); $escapes[$n]") ]), on_error_stop => 1, stderr => \$refusal);
	if ($status == 0)
	{
		$runs[$n] = weir_trigger($node, "escape $n");
		$defined++;
	}
	else
	{
		like($refusal, qr/JSON path: \$\.tasks\[0\]\.spec\.sql/, "refused when it is defined: $escapes[$n]");
	}
}
cmp_ok($defined, '>', 10, 'most of them are defined');
# What does not fail must not stay: for the next task, nor for the session.
as_loader(define("'soil'", [ sql('try', "SET search_path = evil, pg_catalog; SET work_mem = '77MB'; SET default_transaction_read_only = on; SET statement_timeout = 1; SELECT pg_advisory_lock(4711)") ]));
as_loader(define("'clean'", [ sql('look', "INSERT INTO landed SELECT {{run.id}}, concat_ws(' ', current_user, current_setting('search_path'), current_setting('work_mem'), (SELECT count(*) FROM pg_prepared_statements))") ]));
my ($soil, $clean) = (weir_trigger($node, 'soil'), weir_trigger($node, 'clean'));
is(value(q{CALL weir.conduct();
	SELECT concat_ws(' ', session_user = current_user, current_setting('search_path'), current_setting('work_mem'), current_setting('default_transaction_read_only'), current_setting('statement_timeout'))}),
	't "$user", public 4MB off 0', 'conduct: the session is as it was');
foreach my $n (0 .. $#escapes)
{
	next unless $runs[$n];
	is(value("SELECT status FROM weir.run WHERE run_id = $runs[$n]"), 'failed', "refused: $escapes[$n]")
	  and note(value("SELECT error_message FROM weir.run WHERE run_id = $runs[$n]"));
}
is(value("SELECT count(*) FROM landed WHERE what = 'escaped' OR run_id = 0"), '0', 'conduct: nothing of them stayed');
is(value("SELECT rolsuper FROM pg_roles WHERE rolname = 'loader'"), 'f', 'conduct: the owner is what he was');
is(value("SELECT status FROM weir.run WHERE run_id = $soil"), 'succeeded', 'conduct: settings may be changed');
is(value("SELECT what FROM landed WHERE run_id = $clean"), 'loader "$user", public 4MB 0', 'conduct: the next task finds them as they were');
$node->stop;
done_testing();
