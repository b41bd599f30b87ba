# How the statements of a SQL task run: settings, roles, statement timeouts,
# procedures that commit by themselves; and what of them becomes the output.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('sqlfeatures');

$node->safe_psql('postgres', q{
	CREATE ROLE loader LOGIN IN ROLE weir_admin;
	CREATE ROLE stage; CREATE ROLE vault;
	GRANT stage TO loader;
	GRANT ALL ON SCHEMA public TO loader, stage;
	CREATE TABLE landed (id serial PRIMARY KEY, run_id bigint, what text);
	GRANT ALL ON landed TO loader, stage, vault;
	GRANT USAGE ON SEQUENCE landed_id_seq TO loader, stage, vault;
	CREATE SCHEMA stage AUTHORIZATION stage;
	CREATE TABLE only_loader (a integer); ALTER TABLE only_loader OWNER TO loader});

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

sub sql
{
	my ($sql, $spec, %more) = @_;
	return { name => 'do', kind => 'sql', spec => { sql => $sql, %{ $spec // {} } }, %more };
}

my $count = 0;
sub start
{
	my ($task, %more) = @_;
	my $name = 'p' . ++$count;
	my $definition = literal($json->encode({ tasks => [$task], %more }));
	$node->safe_psql('postgres', "SET ROLE loader; SELECT weir.create_pipeline('$name', $definition)");
	return weir_trigger($node, $name);
}

# The output of a task that succeeds.
sub output
{
	my ($task, $name, %more) = @_;
	my $run = start($task, %more);
	is(wait_for_run($node, $run), 'succeeded', $name) or diag(value("SELECT message, detail FROM weir.error WHERE run_id = $run"));
	return decode_json(value("SELECT output FROM weir.task_run WHERE run_id = $run"));
}

# Code, failure type and message of a task that fails.
sub failure
{
	my ($task, $name) = @_;
	my $run = start($task);
	is(wait_for_run($node, $run), 'failed', $name);
	return value("SELECT concat_ws(' ', code, failure_type, message) FROM weir.error WHERE run_id = $run ORDER BY occurred_at DESC LIMIT 1");
}

sub landed { return value("SELECT coalesce(string_agg(what, ',' ORDER BY id), '') FROM landed WHERE run_id = $_[0]") }

# --- settings: for the task only
my $shown = q{SELECT current_setting('work_mem') AS mem, current_setting('search_path') AS path, current_setting('my.own', true) AS own};
my $out = output(sql($shown, { set => { work_mem => '77MB', search_path => 'stage, public', 'my.own' => '{{params.who}}', enable_seqscan => JSON::PP::false } }),
	'with settings', parameters => { who => { type => 'text', default => "it's; DROP" } });
is_deeply($out->{rows}, [ { mem => '77MB', path => 'stage, public', own => "it's; DROP" } ], 'they are set, references rendered');
$out = output(sql($shown), 'the next task');
is_deeply($out->{rows}, [ { mem => '4MB', path => '"$user", public', own => '' } ], 'does not see them') if defined $out->{rows}[0]{own};
is($out->{rows}[0]{mem}, '4MB', 'nor their values');
like(failure(sql('SELECT 1', { set => { log_statement => 'all' } }), 'a setting that is not for everybody'),
	qr/^42501 user permission denied to set parameter "log_statement"/, 'is refused as the owner would be');

# --- roles
$out = output(sql('SELECT current_user AS who, session_user AS session', { role => 'stage' }), 'as another role');
is($out->{rows}[0]{who}, 'stage', 'it runs as that');
like(failure(sql('SELECT * FROM only_loader', { role => 'stage' }), 'what the owner may'), qr/^42501 user permission denied/, 'that role may not');
foreach my $escape ('RESET ROLE', 'SET ROLE loader', 'SET SESSION AUTHORIZATION DEFAULT', 'RESET SESSION AUTHORIZATION',
	"SELECT set_config('role', 'loader', false)", "SELECT set_config('session_authorization', 'loader', true)",
	"DO \$\$ BEGIN BEGIN RESET ROLE; EXCEPTION WHEN division_by_zero THEN NULL; END; END \$\$")
{
	like(failure(sql("$escape; SELECT * FROM only_loader", { role => 'stage' }), "no way back: $escape"), qr/^42501 user cannot set parameter/, 'refused');
}
# What waits for the commit runs as the role too.
value(q{CREATE FUNCTION stage.spy() RETURNS integer VOLATILE LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.landed (run_id, what) VALUES (-1, current_user); RETURN 1; END $$;
	ALTER FUNCTION stage.spy() OWNER TO stage});
output(sql('DECLARE c CURSOR WITH HOLD FOR SELECT stage.spy() FROM generate_series(1, 2)', { role => 'stage' }), 'a cursor WITH HOLD');
is(value('SELECT string_agg(DISTINCT what, $$,$$) FROM landed WHERE run_id = -1'), 'stage', 'is filled as the role');
value(q{CREATE TABLE stage.t (a integer); ALTER TABLE stage.t OWNER TO stage;
	CREATE FUNCTION stage.late() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN INSERT INTO public.landed (run_id, what) VALUES (-2, current_user); IF NEW.a < 3 THEN SET CONSTRAINTS ALL DEFERRED; INSERT INTO stage.t VALUES (NEW.a + 1); END IF; RETURN NULL; END $$;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT ON stage.t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stage.late()});
output(sql('INSERT INTO stage.t VALUES (1)', { role => 'stage' }), 'triggers that put themselves off');
is(value('SELECT string_agg(what, $$,$$) FROM landed WHERE run_id = -2'), 'stage,stage,stage', 'fire as the role');
$out = output(sql('SELECT current_user AS who'), 'the next task of the owner');
is($out->{rows}[0]{who}, 'loader', 'runs as the owner again');
# The right is asked for again when it runs.
my $definition = literal($json->encode({ tasks => [ sql('SELECT 1', { role => 'stage' }) ] }));
value("SET ROLE loader; SELECT weir.create_pipeline('revoked', $definition); RESET ROLE; REVOKE stage FROM loader");
my $run = weir_trigger($node, 'revoked');
is(wait_for_run($node, $run), 'failed', 'membership was revoked meanwhile');
like(value("SELECT code || ' ' || message FROM weir.error WHERE run_id = $run"), qr/^42501 the pipeline's owner "loader" cannot become role "stage"/, 'and the task says so');
value('GRANT stage TO loader');

# --- the statement timeout
my $slow = 'SELECT pg_sleep(600)';
is(failure(sql($slow, { statement_timeout => '300 milliseconds' }), 'a statement that takes too long'),
	'57014 system canceling statement due to statement timeout', 'is cancelled');
is(failure(sql("SELECT 1; DO \$\$ BEGIN PERFORM pg_sleep(600); END \$\$", { statement_timeout => 0.3 }), 'inside a block'),
	'57014 system canceling statement due to statement timeout', 'is cancelled too');
output(sql('SELECT pg_sleep(0.2); SELECT pg_sleep(0.2); SELECT pg_sleep(0.2); SELECT pg_sleep(0.2); SELECT pg_sleep(0.2)', { statement_timeout => '{{params.limit}}' }),
	'each statement has its own time', parameters => { limit => { type => 'text', default => '900 milliseconds' } });
$out = output(sql('SELECT pg_sleep(0.5)'), 'the timer of an earlier task does not strike');
like(failure(sql('SELECT 1', { statement_timeout => '{{run.id}} fortnights or so' }), 'no duration after all'), qr/^22007 user invalid input syntax for type interval/, 'says so');

# --- rows, counts, notices
$out = output(sql('SELECT n FROM generate_series(1, 30) n'), 'a result of 30 rows');
is(scalar(@{ $out->{rows} }) . ' ' . ($out->{truncated} ? 'truncated' : 'whole') . " $out->{rowsRead}", '20 truncated 30', 'twenty are kept, and it says so');
$out = output(sql('SELECT n FROM generate_series(1, 20) n'), 'a result of 20 rows');
is(scalar(@{ $out->{rows} }) . ($out->{truncated} ? ' truncated' : ''), '20', 'is whole');
$out = output(sql('SELECT n FROM generate_series(1, 2000) n', { max_rows => 1000 }), 'max_rows 1000');
is(scalar(@{ $out->{rows} }) . ($out->{truncated} ? ' truncated' : ''), '1000 truncated', 'keeps 1000');
$out = output(sql("SELECT repeat('x', 1000) FROM generate_series(1, 1000)", { max_rows => 1000 }), 'long rows');
ok($out->{truncated} && @{ $out->{rows} } > 50 && @{ $out->{rows} } < 66, 'are kept up to 64 kB');
$out = output(sql('SELECT 1', { max_rows => 0 }), 'max_rows 0');
is(scalar(@{ $out->{rows} }) . ($out->{truncated} ? ' truncated' : ''), '0 truncated', 'keeps none');
$out = output(sql("CREATE TEMP TABLE t (a integer); INSERT INTO t SELECT generate_series(1, 7); UPDATE t SET a = 0 WHERE a > 4; SELECT * FROM t; DELETE FROM t"), 'several statements');
is_deeply($out->{statements}, [ { command => 'CREATE TABLE' }, { command => 'INSERT', rowsWritten => 7 }, { command => 'UPDATE', rowsWritten => 3 },
	{ command => 'SELECT', rowsRead => 7 }, { command => 'DELETE', rowsWritten => 7 } ], 'are counted one by one');
is("$out->{rowsWritten} $out->{rowsRead}", '17 7', 'and together');
$out = output(sql(join('; ', ('SELECT 1') x 150)), '150 statements');
is(scalar(@{ $out->{statements} }) . ' ' . $out->{statements_dropped}, '100 50', 'of a hundred it is kept');

$out = output(sql("DO \$\$ BEGIN RAISE NOTICE 'na\x{ef}ve %', 1; RAISE WARNING 'two'; RAISE INFO 'three'; RAISE DEBUG 'four'; RAISE LOG 'five'; END \$\$"), 'messages');
is_deeply($out->{notices}, [ { severity => 'NOTICE', message => "na\x{ef}ve 1" }, { severity => 'WARNING', message => 'two' }, { severity => 'INFO', message => 'three' } ], 'are in the output');
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/NOTICE:|INFO:  three/, 'what the server log does not want is not in it');
like($log, qr/WARNING:  two/, 'what it wants is');
$out = output(sql("SET client_min_messages = warning; DO \$\$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END \$\$"), 'fewer messages');
is_deeply($out->{notices}, [ { severity => 'WARNING', message => 'two' } ], 'as the task wants');
$out = output(sql("DO \$\$ BEGIN FOR i IN 1 .. 1000 LOOP RAISE NOTICE '% %', i, repeat('x', 2000); END LOOP; END \$\$"), 'a flood of messages');
cmp_ok(length($json->encode($out->{notices})), '<', 20000, 'is bounded');
ok($out->{notices}[-1]{dropped} > 900, 'and says so');
$run = start(sql("DO \$\$ BEGIN RAISE NOTICE 'so far'; RAISE EXCEPTION 'no further' USING DETAIL = 'Detail.'; END \$\$"));
is(wait_for_run($node, $run), 'failed', 'messages before an error');
is(value("SELECT detail FROM weir.error WHERE run_id = $run"), "Detail.\nPL/pgSQL function inline_code_block line 1 at RAISE\nNOTICE: so far", 'are in its detail');

# --- a procedure that commits by itself
value(q{
	CREATE PROCEDURE public.batches(run bigint, n integer, fail_at integer DEFAULT NULL, gate integer DEFAULT NULL) LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 1 .. n LOOP
			INSERT INTO public.landed (run_id, what) VALUES (run, i || ' ' || current_user || ' ' || current_setting('work_mem'));
			IF i = fail_at THEN RAISE EXCEPTION 'batch % failed', i; END IF;
			RAISE NOTICE 'batch %', i;
			COMMIT;
			IF i = 2 AND gate IS NOT NULL THEN PERFORM pg_advisory_xact_lock_shared(gate); END IF;
		END LOOP;
		INSERT INTO public.landed (run_id, what) VALUES (run, 'end');
	END $$});
my $own = { transaction => 'own', set => { work_mem => '66MB' } };
$run = start(sql('CALL public.batches({{run.id}}, {{params.n}})', $own), parameters => { n => { type => 'bigint', default => 3 } });
is(wait_for_run($node, $run), 'failed', 'a bigint for an integer');
like(value("SELECT message FROM weir.error WHERE run_id = $run"), qr/procedure public.batches\(bigint, bigint\) does not exist/, 'fits no procedure');
$run = start(sql('CALL public.batches({{run.id}}, 3)', $own));
is(wait_for_run($node, $run), 'succeeded', 'a procedure that commits') or diag(value("SELECT message, detail FROM weir.error WHERE run_id = $run"));
is(landed($run), '1 loader 66MB,2 loader 66MB,3 loader 66MB,end', 'did all of it, with its settings');
is(value("SELECT output->'notices'->1->>'message' FROM weir.task_run WHERE run_id = $run"), 'batch 2', 'and its messages are kept');
is(value("SELECT count(DISTINCT xmin::text) FROM landed WHERE run_id = $run"), '4', 'in transactions of its own');
$out = output(sql($shown), 'the task after it');
is($out->{rows}[0]{mem}, '4MB', 'has no settings of it');

$run = start(sql('CALL public.batches({{run.id}}, 3, 3)', $own));
is(wait_for_run($node, $run), 'failed', 'a procedure that fails');
is(landed($run), '1 loader 66MB,2 loader 66MB', 'what it had committed stays');
like(value("SELECT code || ' ' || message || ' ' || detail FROM weir.error WHERE run_id = $run"),
	qr/^P0001 batch 3 failed PL\/pgSQL function .*batches\(.*\) line \d+ at RAISE\nNOTICE: batch 1\nNOTICE: batch 2$/, 'and the error is told');
is(failure(sql('CALL public.batches({{run.id}}, 2)'), 'without being declared'), '2D000 user invalid transaction termination', 'a procedure must not commit');

sub close_gate { value("BEGIN; SELECT pg_advisory_xact_lock($_[0]); PREPARE TRANSACTION 'gate $_[0]'"); return }
sub at_gate
{
	wait_until($node, 'the procedure waits at the gate',
		"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = $_[0] AND NOT granted");
	return;
}
close_gate(7);
$run = start(sql('CALL public.batches({{run.id}}, 3, NULL, 7)', { %$own, statement_timeout => '500 milliseconds' }));
is(wait_for_run($node, $run), 'failed', 'a procedure that takes too long');
is(value("SELECT sqlstate || ' ' || error_message FROM weir.attempt WHERE run_id = $run"), '57014 canceling statement due to statement timeout', 'is cancelled');
$run = start(sql('CALL public.batches({{run.id}}, 3, NULL, 7)', $own));
at_gate(7);
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'a procedure can be cancelled');
my $cancelled_run = $run;

# At least once: killed in the middle, it is called again.
$run = start(sql('CALL public.batches({{run.id}}, 3, NULL, 7)', $own));
at_gate(7);
my $pid = value("SELECT worker_pid FROM weir.attempt WHERE run_id = $run");
my $position = -s $node->logfile;
kill 'KILL', $pid;
wait_for_restart($node, $position);
at_gate(7);
value("ROLLBACK PREPARED 'gate 7'");
is(wait_for_run($node, $run), 'succeeded', 'after kill -9 it is called again');
is(value("SELECT string_agg(status, ',' ORDER BY attempt_no) FROM weir.attempt WHERE run_id = $run"), 'lost,succeeded', 'by another attempt');
is(landed($run), '1 loader 66MB,2 loader 66MB,1 loader 66MB,2 loader 66MB,3 loader 66MB,end', 'what the first had committed was done twice');

is(value("SELECT error_message FROM weir.task_run WHERE run_id = $cancelled_run"), 'cancelled while it ran', 'and says so');

# --- names of columns
$out = output(sql('SELECT 1 AS a, 2 AS a, 3 AS a_2, 4, 5'), 'columns of one name');
is($json->encode($out->{rows}[0]), '{"?column?":4,"?column?_2":5,"a":1,"a_2":3,"a_3":2}', 'are told apart');
my $long = 'x' x 62;
$out = output(sql("SELECT 1 AS ${long}1, 2 AS ${long}2, 3 AS ${long}2, 4 AS ${long}1, 5 AS b_2, 6 AS b, 7 AS b_3, 8 AS b, 9 AS b"), 'long columns');
is(join(',', sort { $a <=> $b } values %{ $out->{rows}[0] }), '1,2,3,4,5,6,7,8,9', 'none is lost');
is("$out->{rows}[0]{b_4}$out->{rows}[0]{b_5}", '89', 'numbers that are taken are passed over');
# 1,600 columns are named as fast as they are read: with a look at all the others for each number it takes seconds.
my $alike = sql('SELECT ' . join(', ', map { "$_ AS a" } 1 .. 1600));
my $unlike = sql('SELECT ' . join(', ', map { "$_ AS a$_" } 1 .. 1600));
sub seconds
{
	my ($task) = @_;
	my @runs = map { start($task) } 1 .. 3;
	is(wait_for_run($node, $_), 'succeeded', '1,600 columns') foreach @runs;
	return value('SELECT min(ended_at - started_at) FROM weir.attempt WHERE run_id IN (' . join(',', @runs) . ')') =~ /(\d+):(\d+):([\d.]+)/ ? $1 * 3600 + $2 * 60 + $3 : undef;
}
cmp_ok(seconds($alike), '<', 10 * seconds($unlike), 'of one name take hardly longer than of many');
$out = output(sql(q{SELECT '{"k": 1, "k": 2}'::json AS j}), 'a value that is no JSON of ours');
ok(!exists $out->{rows} && $out->{truncated} && $out->{rowsRead} == 1, 'is left out, and that is said');

# --- where it happened
value(q{CREATE FUNCTION public.inner_work() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$});
value(q{CREATE FUNCTION public.outer_work() RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN public.inner_work(); END $$});
$run = start(sql("SELECT public.outer_work() /* SQL statement \" */"));
is(wait_for_run($node, $run), 'failed', 'an error in a function of a function');
like(value("SELECT detail FROM weir.errors WHERE run_id = $run"),
	qr/^PL\/pgSQL function (public\.)?inner_work\(\) line 1 at RAISE\nPL\/pgSQL function (public\.)?outer_work\(\) line 1 at RETURN$/, 'says where, without the statement of the task');
$run = start(sql('CALL public.batches({{run.id}}, 3, NULL, NULL)'));
is(wait_for_run($node, $run), 'failed', 'a procedure that commits');
like(value("SELECT detail FROM weir.errors WHERE run_id = $run"), qr/needs "transaction": "own"/, 'is told what it needs');

# --- plans of weir's own statements in workers do not read whole tables, those of tasks are as they were
$out = output(sql('SELECT current_setting($$enable_seqscan$$) AS a, current_setting($$plan_cache_mode$$) AS b, current_setting($$log_min_messages$$) AS c'), 'the planner of a task');
is("$out->{rows}[0]{a} $out->{rows}[0]{b}", 'on auto', 'is as everywhere');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), 0, 'no attempt is left over');
$node->stop;
done_testing();
