# At rest weir sleeps; a rolled-back trigger leaves nothing and a committed one
# needs no timer; and nothing that comes from outside does more than fail with
# a reason.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('idle', conf => q{
autovacuum = off
weir.retention_age = 0
weir.retention_runs = 0
weir.sql_worker_idle_timeout = 100ms
weir.http_max_body = 1MB
});
my $cloud = weir_cloud($node);
my $address = $cloud->address;

# What looks on from the other database disturbs nobody here.
$node->safe_psql('postgres', 'CREATE DATABASE other');
sub other { return $node->safe_psql('other', $_[0]); }
sub value { return $node->safe_psql('postgres', $_[0]); }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'"; }

# Waiting in vain is an answer already: do not wait for what depends on it.
sub must
{
	my ($ok, $what) = @_;
	ok($ok, $what);
	die "gave up: $what" unless $ok;
	return;
}

must(backend_pid($node, 'weir conductor%', in => 'postgres'), 'there is a conductor');
my $conductor = other(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'weir conductor' AND datname = 'postgres'});
my $launcher = other(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'weir launcher'});

# --- asleep

# How often the two were given the processor, and what they did in the database.
sub switches
{
	my $text = '';
	foreach my $pid ($launcher, $conductor)
	{
		my $status = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/status");
		$text .= join('+', $status =~ /ctxt_switches:\s+(\d+)/g) . ' ';
	}
	return $text;
}

sub sample
{
	return switches() . other(q{
		SELECT (SELECT xact_commit || ' ' || xact_rollback || ' ' || tup_returned FROM pg_stat_database WHERE datname = 'postgres')
			|| ' ' || (SELECT string_agg(coalesce(state_change::text, ''), ' ' ORDER BY pid) FROM pg_stat_activity WHERE backend_type LIKE 'weir %')});
}

# Something else that takes a while; how long does not matter.
sub elsewhere
{
	my ($transactions) = @_;
	my $script = $node->basedir . '/elsewhere.sql';

	PostgreSQL::Test::Utils::append_to_file($script, "SELECT txid_current();\n") unless -e $script;
	PostgreSQL::Test::Utils::run_log([ 'pgbench', '-n', '-t', $transactions, '-f', $script, $node->connstr('other') ],
		'>', \my $out, '2>', \my $err) or die "pgbench failed";
	return;
}

# Milliseconds a process waits for at most, by its system call: -1 for ever, undef if that cannot be seen.
sub timeout_of
{
	my ($pid) = @_;
	my $call;

	eval { $call = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/syscall"); 1 } or return;
	my ($number, @arguments) = split / /, $call;
	# epoll_wait of x86-64 and epoll_pwait of others have the timeout in fourth place
	return unless $number =~ /^(232|281|22)$/;
	my $timeout = hex(substr($arguments[3], -8) =~ s/^0x//r);
	return $timeout >= 2**31 ? -1 : $timeout;
}

# Timers among the open files that are set.
sub armed_timers
{
	my ($pid) = @_;
	my $armed = 0;

	foreach my $file (glob "/proc/$pid/fdinfo/*")
	{
		my $text = '';
		eval { $text = PostgreSQL::Test::Utils::slurp_file($file); 1 } or next;
		$armed++ if $text =~ /it_value: \((?!0, 0\))/;
	}
	return $armed;
}

sub asleep
{
	my ($what, $may_have_timer) = @_;

	wait_until($node, 'no SQL worker is left', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'weir SQL worker%'}, dbname => 'other')
	  or die 'a SQL worker stays';
	# until what came before is over
	my ($before, $now, $looks, $same) = ('', sample(), 0, 0);
	while ($same < 3 && $looks++ < 50)
	{
		elsewhere(300);
		($before, $now) = ($now, sample());
		$same = $before eq $now ? $same + 1 : 0;
	}
	# The server itself may wake everybody once (a barrier, a checkpoint); whoever ticks does so in every stretch.
	foreach my $stretch (1 .. 3)
	{
		($before, $now) = ($now, undef);
		elsewhere(5000);
		$now = sample();
		last if $before eq $now;
	}
	is($now, $before, "$what: launcher and conductor sleep");
	my @timeouts = map { timeout_of($_) } ($launcher, $conductor);
  SKIP:
	{
		skip 'the system call of a process cannot be seen here', 2 unless @timeouts == 2;
		is($timeouts[0], -1, "$what: the launcher waits for ever");
		if ($may_have_timer)
		{
			cmp_ok($timeouts[1], '>', 1_800_000, "$what: the conductor waits for what is due in an hour");
			cmp_ok($timeouts[1], '<=', 3_600_000, "$what: and not longer");
		}
		else
		{
			is($timeouts[1], -1, "$what: the conductor waits for ever");
		}
	}
	is(armed_timers($conductor), 0, "$what: no timer is set");
	return;
}

sub pipeline
{
	my ($name, $tasks, %more) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => $tasks, %more })) . '::jsonb)');
	return;
}

asleep('just created');

pipeline('noop', [ { name => 'a', kind => 'noop', spec => {} } ]);
pipeline('sql', [ { name => 'a', kind => 'sql', spec => { sql => 'SELECT 1' } }, { name => 'b', kind => 'noop', spec => {}, depends_on => ['a'] } ]);
pipeline('paused', [ { name => 'a', kind => 'noop', spec => {} } ]);
pipeline('retries', [ { name => 'a', kind => 'sql', spec => { sql => 'SELECT 1/0' },
			retry => { max_attempts => 3, initial_delay => '1 hour', max_delay => '1 hour', multiplier => 1, jitter => 0 } } ]);
value(qq{
	SELECT weir.pause_pipeline('paused');
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_secret('client', 'weir-secret');
	SELECT weir.create_connection('http', 'http', '$address/http');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}');
	SELECT weir.create_connection('adf', 'adf', '$address/adf',
		'{"type": "entra_client_secret", "tenant_id": "local", "client_id": "weir-client", "client_secret": "client", "authority": "$address"}',
		'{"subscription_id": "s1", "resource_group": "rg", "factory": "adf-dev", "settle_seconds": 0}')});
pipeline('calls', [ { name => 'a', kind => 'http', connection => 'http', spec => { path => '/json' } },
	{ name => 'b', kind => 'adf_pipeline', connection => 'adf', spec => { pipeline => 'wait', parameters => { seconds => 0 } } },
	{ name => 'c', kind => 'databricks_job', connection => 'dbx', spec => { job_id => 102, job_parameters => { seconds => '0' } } } ]);
my $queued = weir_trigger($node, 'paused');
foreach my $name ('noop', 'sql', 'calls')
{
	my $run = weir_trigger($node, $name);
	must(wait_for_run($node, $run) eq 'succeeded', "$name ran");
}
asleep('after runs, a run of a paused pipeline queued, connections kept alive');

my $retrying = weir_trigger($node, 'retries');
must(wait_until($node, 'the retry waits', "SELECT status = 'ready' AND attempt_no = 1 AND not_before > now() + interval '50 minutes' FROM weir.task_run WHERE run_id = $retrying"),
	'a retry waits for an hour');
asleep('a retry due in an hour', 1);
value("SELECT weir.cancel($retrying)");
must(wait_for_run($node, $retrying) eq 'cancelled', 'cancelled');
asleep('cancelled');

# --- a rolled-back trigger leaves nothing

value(q{
	CREATE FUNCTION public.fails() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN PERFORM weir.trigger('sql'); RAISE EXCEPTION 'after the trigger'; END $$;
	CREATE FUNCTION public.swallows() RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		BEGIN PERFORM weir.trigger('sql'); RAISE EXCEPTION 'after the trigger';
		EXCEPTION WHEN raise_exception THEN RETURN 'swallowed'; END;
	END $$;
	CREATE TABLE public.mark (n int)});

sub rows
{
	return value(q{SELECT (SELECT count(*) FROM weir.run) || ' ' || (SELECT count(*) FROM weir.task_run) || ' '
		|| (SELECT count(*) FROM weir.attempt) || ' ' || (SELECT count(*) FROM weir.request) || ' '
		|| (SELECT string_agg(s::text, ';' ORDER BY s.pipeline_id) FROM weir.pipeline_state s) || (SELECT count(*) FROM weir.pipeline WHERE is_paused)});
}

sub workers { return other(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'weir SQL worker%'}); }

my $rows = rows();
foreach my $case (
	[ 'ROLLBACK', q{BEGIN; SELECT weir.trigger('sql'); ROLLBACK}, 0 ],
	[ 'and then a COMMIT of something else', q{BEGIN; SELECT weir.trigger('sql'); ROLLBACK; BEGIN; INSERT INTO public.mark VALUES (1); COMMIT}, 0 ],
	[ 'trigger, cancel, pause and skip', qq{BEGIN; SELECT weir.trigger('sql'); SELECT weir.cancel($queued); SELECT weir.resume_pipeline('paused'); SELECT weir.pause_pipeline('sql'); SELECT weir.skip_once('sql'); ROLLBACK}, 0 ],
	[ 'a function that fails', q{SELECT public.fails()}, 'after the trigger' ],
	[ 'an error afterwards', q{BEGIN; SELECT weir.trigger('sql'); SELECT 1/0; COMMIT}, 'division by zero' ],
	[ 'PREPARE TRANSACTION', q{BEGIN; SELECT weir.trigger('sql'); PREPARE TRANSACTION 'x'}, 'cannot prepare a transaction that triggered weir runs' ],
	[ 'the session is terminated', q{BEGIN; SELECT weir.trigger('sql'); SELECT pg_terminate_backend(pg_backend_pid())}, 'terminating connection' ])
{
	my ($what, $sql, $error) = @$case;
	my $before = switches();
	my ($status, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 1);
	like($err, qr/$error/, "$what: an error") if $error;
	is($status, 0, "$what: done") or diag($err) if !$error;
	is(rows(), $rows, "$what: no row is left");
	is(switches(), $before, "$what: nobody was woken");
	is(workers(), 0, "$what: no worker was started");
}
is(value('SELECT count(*) FROM pg_prepared_xacts'), 0, 'nothing is prepared');

# A subtransaction may wake the conductor for nothing, and for nothing only.
foreach my $case ([ 'ROLLBACK TO SAVEPOINT', q{BEGIN; SAVEPOINT s; SELECT weir.trigger('sql'); ROLLBACK TO s; COMMIT} ],
	[ 'an exception caught', q{SELECT public.swallows()} ])
{
	my ($what, $sql) = @$case;
	value($sql);
	asleep($what);
	is(rows(), $rows, "$what: no row is left");
}
my $kept = (split /\n/, value(q{BEGIN; SAVEPOINT s; SELECT weir.trigger('sql'); ROLLBACK TO s; SELECT weir.trigger('noop'); COMMIT}))[-1];
is(wait_for_run($node, $kept), 'succeeded', 'what was triggered outside of the savepoint starts');
is(value("SELECT count(*) FROM weir.run WHERE pipeline_name = 'sql' AND run_id > (SELECT max(run_id) - 2 FROM weir.run) AND run_id <> $kept"), 0, 'what was inside does not');

# --- a committed one starts by itself: nobody was to look at the clock
asleep('before a trigger');
foreach my $name ('noop', 'sql')
{
	my $run = weir_trigger($node, $name);
	is(wait_for_run($node, $run), 'succeeded', "$name starts from sleep");
}

# Prepared transactions hold the pipeline's state; it is let go without a word.
sub hold
{
	my ($change, $name) = @_;
	value("BEGIN; UPDATE weir.pipeline_state s SET $change FROM weir.pipeline p WHERE p.pipeline_id = s.pipeline_id AND p.name = '$name'; PREPARE TRANSACTION 'holds'");
	return;
}
foreach my $case ([ 'ROLLBACK', 'succeeded' ], [ 'COMMIT', 'skipped' ])
{
	my ($end, $status) = @$case;
	hold('skip_once = true', 'sql');
	my $run = weir_trigger($node, 'sql');
	is(value("SELECT status FROM weir.run WHERE run_id = $run"), 'queued', "skip_once, undecided: a run waits");
	value("$end PREPARED 'holds'");
	is(wait_for_run($node, $run), $status, "$end: it starts by itself and is $status");
}
# So does an answer that arrives while somebody holds it.
{
	pipeline('answered', [ { name => 'a', kind => 'http', connection => 'http', spec => { path => '/json/answered' } } ]);
	$cloud->add_fault(operation => 'http.json', fault => 'hold');
	my $run = weir_trigger($node, 'answered');
	$cloud->wait(operation => 'http.json', path => '/http/json/answered');
	hold('skip_once = true', 'answered');
	my $before = switches();
	$cloud->clear_faults;
	# until the conductor has met the lock and waits a moment before it looks again
	foreach (1 .. 500)
	{
		my $timeout = timeout_of($conductor);
		last if switches() ne $before && defined $timeout && $timeout >= 0 && $timeout <= 200;
		elsewhere(10);
	}
	is(value("SELECT status FROM weir.run WHERE run_id = $run"), 'running', 'an answer waits');
	value("ROLLBACK PREPARED 'holds'");
	must(wait_for_run($node, $run) eq 'succeeded', 'and is written when the state is let go');
}
# The place of a run that was never triggered is free.
{
	my ($in, $out, $err) = ("BEGIN;\nSELECT 'run ' || weir.trigger('sql');\n", '', '');
	my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') ], '<', \$in, '>', \$out, '2>', \$err,
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$session->pump until $out =~ /run \d+/;
	my $run = weir_trigger($node, 'sql');
	is(wait_for_run($node, $run), 'succeeded', 'a run does not wait for one that is not committed');
	$in = "ROLLBACK;\n\\q\n";
	$session->finish;
}
asleep('all done');

# --- text from outside

my $victim = q{CREATE TABLE public.victim (t text); INSERT INTO public.victim VALUES ('alive')};
value($victim);
my @injections = (q{'); DROP TABLE public.victim; --}, q{"; DROP TABLE public.victim; --}, q{$$; DROP TABLE public.victim; $$}, q{\\'; DROP TABLE public.victim; --},
	"a\r\nX-Injected: 1", '{{params.x}}', '{{tasks.a.output}}', '%s%n%d', '../../../x', "\x{202e}\x{10ffff}", 'x' x 70000, '@victim');

sub unharmed
{
	my ($what) = @_;
	is(value('SELECT t FROM public.victim'), 'alive', "$what: no injection");
	is(other(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'weir conductor' AND datname = 'postgres'}), $conductor, "$what: the conductor lives");
	return;
}

# Answers of services
my %bodies = (
	'nested deeply' => '[' x 1000000,
	'nested deeply and closed' => '{"a":' x 5000 . '1' . '}' x 5000,
	'no UTF-8' => "{\"error\": \"\\udcff\\udcfe\", \"run_id\": \"\\udcc3\\udc28\", \"runId\": \"\\udcff\"}",
	'NUL' => '{"error_code": "a\u0000b", "message": "c\u0000", "runId": "\u0000", "run_id": "\u0000"}',
	'HTML' => '<html><head><title>Sign in</title></head><body onload="x()">' . '<p>' x 1000,
	'empty' => '',
	'a number' => '1e400',
	'numbers' => '{"run_id": 1e400, "runId": -9223372036854775809, "number_in_job": 99999999999999999999999999}',
	'an array' => '[[[]]]',
	'the wrong types' => '{"run_id": {"a": 1}, "runId": [], "state": "x", "status": 5, "tasks": {}, "value": 3, "error": 7}',
	'keys twice' => '{"run_id": 1, "run_id": 2, "runId": "a", "runId": "b"}',
	'injections' => $json->encode({ run_id => $injections[0], runId => $injections[0], message => $injections[0], error_code => $injections[1],
			error => { code => $injections[0], message => $injections[2] }, state => { life_cycle_state => $injections[0], state_message => $injections[3] } }),
	'half' => '{"run_id": 12',
	'control characters' => "{\"run_id\": \"1\x01\x02\"}");
my %tasks = (
	'http.json' => { kind => 'http', connection => 'http', spec => { path => '/json' } },
	'databricks.run-now' => { kind => 'databricks_job', connection => 'dbx', spec => { job_id => 102, job_parameters => { seconds => '0' } } },
	'databricks.get' => { kind => 'databricks_job', connection => 'dbx', spec => { job_id => 102, job_parameters => { seconds => '0' } } },
	'adf.createRun' => { kind => 'adf_pipeline', connection => 'adf', spec => { pipeline => 'wait', parameters => { seconds => 0 } } },
	'adf.getRun' => { kind => 'adf_pipeline', connection => 'adf', spec => { pipeline => 'wait', parameters => { seconds => 0 } } },
	'adf.queryActivityRuns' => { kind => 'adf_pipeline', connection => 'adf', spec => { pipeline => 'wait', parameters => { seconds => 0 } } });
foreach my $operation (sort keys %tasks)
{
	my $name = 'hostile_' . ($operation =~ s/[^a-z]/_/gir);
	my @faults;

	# Each run fails at the first answer, or takes some more of them; in the end there is a plain refusal.
	foreach my $status (200, 400)
	{
		push @faults, { operation => $operation, fault => 'not_json', status => $status, body => $bodies{$_} } foreach sort keys %bodies;
	}
	push @faults, { operation => $operation, fault => 'huge', mb => 10, chunked => JSON::PP::true };
	my $runs = @faults;
	push @faults, { operation => $operation, fault => 'status', status => 400, body => { error => 'enough' }, times => undef };
	$cloud->clear_faults;
	$cloud->add_fault(%$_) foreach @faults;
	pipeline($name, [ { name => 'a', %{ $tasks{$operation} } } ], max_concurrent_runs => $runs);
	value("SELECT count(weir.trigger('$name')) FROM generate_series(1, $runs)");
	must(wait_until($node, 'all runs have ended', "SELECT count(*) = $runs FROM weir.run WHERE pipeline_name = '$name' AND status IN ('succeeded', 'failed', 'timed_out')"),
		"$operation: every run ended");
	is(scalar(grep { $_->{struck} == 0 } @{ $cloud->call('GET', 'faults')->{faults} }[0 .. $runs - 1]), 0, "$operation: every answer was given");
	$cloud->clear_faults;

	# What a plain HTTP task is answered is its output, and the details of activities are an extra.  A factory
	# that began a run and answered nonsense is asked whether there is one.
	is(value("SELECT count(*) FROM weir.run WHERE pipeline_name = '$name' AND status = 'succeeded'"), 0, "$operation: none succeeded")
	  if $operation =~ /run-now|databricks.get|getRun/;
	is(value("SELECT count(*) FROM weir.run r WHERE pipeline_name = '$name' AND status <> 'succeeded' AND NOT EXISTS (SELECT FROM weir.errors e WHERE e.run_id = r.run_id AND length(e.message) > 5)"),
		0, "$operation: every failure has a reason");
	unharmed($operation);
}
$cloud->add_fault(operation => 'http.json', fault => 'huge', mb => 10, times => undef);
my $huge = weir_trigger($node, 'calls');
is(wait_for_run($node, $huge), 'failed', 'an answer of 10 MB');
like(value("SELECT string_agg(message, ' ') FROM weir.errors WHERE run_id = $huge"), qr/exceeds the limit of 1048576 bytes/, 'is more than was allowed');
$cloud->clear_faults;
is(weir_trigger($node, 'calls') && wait_for_run($node, value('SELECT max(run_id) FROM weir.run')), 'succeeded', 'the connections are good afterwards');

# Parameters go through bind values, escaped JSON and encoded URLs.
value(q{SELECT weir.create_pipeline('echoes', '{"parameters": {"p": {"type": "text"}}, "tasks": [
	{"name": "sql", "kind": "sql", "spec": {"sql": "SELECT {{params.p}} AS p"}},
	{"name": "query", "kind": "http", "connection": "http", "spec": {"path": "/json", "query": {"q": "{{params.p}}"}}},
	{"name": "body", "kind": "http", "connection": "http", "spec": {"method": "POST", "path": "/json", "body": {"b": "{{params.p}}"}}},
	{"name": "header", "kind": "http", "connection": "http", "spec": {"path": "/json", "headers": {"X-P": "{{params.p}}"}}},
	{"name": "path", "kind": "http", "connection": "http", "spec": {"path": "/json/{{params.p}}/end"}},
	{"name": "job", "kind": "databricks_job", "connection": "dbx", "spec": {"job_id": 102, "job_parameters": {"seconds": "0", "extra": "{{params.p}}"}}}]}')});
foreach my $text (@injections)
{
	my $shown = length $text > 30 ? substr($text, 0, 10) . '...' : $text =~ s/[^ -~]/?/gr;
	utf8::encode(my $bytes = $text);
	my $run = value("SELECT weir.trigger('echoes', jsonb_build_object('p', " . literal($bytes) . '::text))');
	must(wait_for_run($node, $run) =~ /succeeded|failed/, "a run with a hostile parameter ends: $shown");
	my %output = map { /^(\w+)\|(\w+)\|(.*)$/s ? ($1 => [ $2, $3 ]) : () } split /\n/,
	  value("SELECT task_name, status, coalesce(output::text, '') FROM weir.task_run WHERE run_id = $run ORDER BY task_no");
	is(value("SELECT output->'rows'->0->>'p' = " . literal($bytes) . " OR output::text LIKE '%truncated%' OR error_message IS NOT NULL OR length(" . literal($bytes) . ") > 60000 FROM weir.task_run WHERE run_id = $run AND task_name = 'sql'"),
		't', "SQL returns what it was given: $shown");
	unlike(join('', map { $_->[1] } values %output), qr/"x-injected": "1"/i, "no header is forged: $shown");
	is($output{header}[0], $text =~ /[\r\n]/ ? 'failed' : $output{header}[0], "a line end in a header fails: $shown");
	like(value("SELECT error_message FROM weir.task_run WHERE run_id = $run AND task_name = 'path'"), qr/not a path below the connection's base URL/, "a path cannot climb: $shown") if $text =~ /^\.\./;
	is(value("SELECT count(*) FROM weir.task_run t WHERE run_id = $run AND status = 'failed' AND NOT EXISTS (SELECT FROM weir.errors e WHERE e.task_run_id = t.task_run_id AND length(e.message) > 5)"),
		0, "failures have reasons: $shown");
}
unharmed('parameters');

# Every function, with every kind of text in every argument.  An internal
# error (XX000) is one that nobody thought of.
value(q{CREATE TABLE public.attempted (call text, sqlstate text, message text)});
value(q{CREATE FUNCTION public.attempt_all() RETURNS void LANGUAGE plpgsql AS $f$
	DECLARE
		texts text[] := ARRAY['', $$'); DROP TABLE public.victim; --$$, '"; DROP TABLE public.victim; --', '{{params.x}}', E'a\r\nb', '%s%n', repeat('x', 2000000), E'\u202e', 'noop', 'http', '1', NULL];
		jsons text[] := ARRAY['null', '[]', '{}', '"x"', '1e4000', '{"tasks": 1}', '{"tasks": []}', repeat('[', 3000) || repeat(']', 3000),
			'{"tasks": [{"name": "a''b\"; DROP TABLE public.victim; --", "kind": "sql", "spec": {"sql": "SELECT 1"}}]}',
			'{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT {{params.x''); DROP TABLE public.victim; --}}"}}]}',
			'{"job_id": "1; DROP TABLE public.victim", "stages": [{"id": "''; DROP TABLE public.victim; --", "type": "ETL", "source": "x", "destination": "y"}]}',
			'{"stages": {"a": ' || repeat('[', 900) || repeat(']', 900) || '}}', '{"a": "' || repeat('y', 2000000) || '"}',
			'{"rowsRead": "''; DROP TABLE public.victim; --", "copyDuration": -1e300, "executionDetails": [[[]]]}', NULL];
		p record;
		value text;
		call text;
		args text;
		arg oid;
		i int;
	BEGIN
		FOR p IN SELECT oid, proname, prokind, proargtypes::oid[] AS types, pronargs FROM pg_proc
			WHERE pronamespace = 'weir'::regnamespace AND prokind = 'f' AND prorettype <> 'trigger'::regtype AND proname !~ '^_'
		LOOP
			FOR round IN 1 .. 15 LOOP
				args := '';
				FOR i IN 0 .. p.pronargs - 1 LOOP
					arg := p.types[i];
					value := CASE WHEN arg IN ('jsonb'::regtype, 'json'::regtype) THEN jsons[1 + (round + i - 1) % 15]
						WHEN arg = 'text'::regtype THEN texts[1 + (round + i - 1) % 12]
						WHEN arg = 'name'::regtype THEN left(texts[1 + (round + i - 1) % 12], 60)
						WHEN arg IN ('bigint'::regtype, 'integer'::regtype) THEN (ARRAY['-1', '0', '2147483647', NULL])[1 + (round + i) % 4]
						WHEN arg = 'bigint[]'::regtype THEN '{1,-1}'
						WHEN arg = 'interval'::regtype THEN '0'
						WHEN arg IN ('timestamptz'::regtype) THEN (ARRAY['infinity', '-infinity', NULL])[1 + round % 3]
						WHEN arg = 'boolean'::regtype THEN 'true' END;
					args := args || CASE WHEN i > 0 THEN ', ' ELSE '' END || quote_nullable(value) || '::' || format_type(arg, NULL);
				END LOOP;
				call := format('SELECT * FROM weir.%I(%s)', p.proname, args);
				BEGIN
					EXECUTE call;
					RAISE EXCEPTION 'undo' USING ERRCODE = 'WE001';
				EXCEPTION WHEN OTHERS THEN
					INSERT INTO public.attempted VALUES (left(call, 1000), SQLSTATE, SQLERRM);
				END;
			END LOOP;
		END LOOP;
	END $f$});
is($node->psql('postgres', 'SELECT public.attempt_all()'), 0, 'every function was called with everything');
cmp_ok(value('SELECT count(*) FROM public.attempted'), '>', 200, 'often');
cmp_ok(value(q{SELECT count(*) FROM public.attempted WHERE sqlstate = 'WE001'}), '>', 5, 'some of it was fine');
is(value(q{SELECT coalesce(string_agg(DISTINCT left(call, 60) || ' ' || sqlstate || ' ' || left(message, 100), E'\n'), '') FROM public.attempted
	WHERE sqlstate LIKE 'XX%' OR sqlstate LIKE '42601' OR sqlstate LIKE '5[378]%' OR length(message) > 5000}), '', 'no error that nobody thought of');
unharmed('functions');
asleep('in the end');
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
unlike($log, qr/PANIC|terminated by signal|weir conductor.*ERROR/, 'nothing died');
$node->stop;
done_testing();
