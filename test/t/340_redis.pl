# Publishing into Redis, against a real server: a version is seen whole or not
# at all, whatever dies, lies or hangs on the way.
#
# Where something must happen between the start of an attempt and its first
# word to Redis, the query waits for an advisory lock that a prepared
# transaction holds.  In the middle of writing, the server itself is stopped.

use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use IPC::Run;
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

use WeirHelper;
use WeirTest;

my $program = (grep { -x } map { "$_/redis-server" } split(/:/, $ENV{PATH}))[0];
plan skip_all => 'there is no redis-server' unless defined $program;

my $json = JSON::PP->new->canonical->ascii;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = weir_node('redis', conf => "weir.sql_worker_idle_timeout = 60s\nlog_min_messages = info\n");
my %servers;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

# --- servers

# Start one by name, again on the port it had; more are further settings.
sub start_redis
{
	my ($name, @more) = @_;
	my $server = $servers{$name} //= { port => PostgreSQL::Test::Cluster::get_free_port(), more => \@more };
	my $log = "$dir/$name.log";

	my $pid = fork_helper($log, sub {
		my @port = grep({ $_ eq '--tls-port' } @{ $server->{more} }) ? ('--port', 0, '--tls-port', $server->{port}) : ('--port', $server->{port});
		my @rest = grep { $_ ne '--tls-port' } @{ $server->{more} };
		exec($program, '--bind', '127.0.0.1', @port, '--save', '', '--appendonly', 'no', '--dir', $dir, @rest);
	});
	$server->{pid} = $pid;
	until_true("$name answers", sub { redis_try($name, 'PING') =~ /PONG|NOAUTH/ });
	return $server;
}

sub stop_redis
{
	my ($name) = @_;
	my $pid = delete $servers{$name}{pid} or return;
	kill 'CONT', $pid;
	kill 'KILL', $pid;
	waitpid($pid, 0);
	return;
}

sub redis_try
{
	my ($name, @command) = @_;
	my $server = $servers{$name};
	my @cli = ('redis-cli', '-h', '127.0.0.1', '-p', $server->{port}, @{ $server->{cli} // [] });
	my ($out, $err) = ('', '');

	IPC::Run::run([ @cli, @command ], '<', \'', '>', \$out, '2>', \$err);
	chomp $out;
	return $out;
}
sub redis { return redis_try('main', @_) }

sub until_true
{
	my ($what, $test) = @_;
	my $deadline = Time::HiRes::time() + $PostgreSQL::Test::Utils::timeout_default;
	until ($test->())
	{
		die "gave up: $what" if Time::HiRes::time() > $deadline;
		select(undef, undef, undef, 0.02);
	}
	return;
}

END { my $status = $?; stop_redis($_) foreach keys %servers; $? = $status; }

start_redis('main');
my $url = "redis://127.0.0.1:$servers{main}{port}";

# --- definitions

my @retry = (retry => { max_attempts => 100, initial_delay => '100 milliseconds', backoff => 'fixed', jitter => 0 });
my @once = (retry => { max_attempts => 1 });

sub publish
{
	my ($name, $sql, $spec, %more) = @_;
	my $connection = delete $more{connection} // 'features';
	my $task = { name => 'publish', kind => 'redis_publish', connection => $connection,
		spec => { sql => $sql, key => 'id', prefix => $name, ttl => '1 hour', %$spec } };
	value("SET ROLE engineer; SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => [$task], @once, %more })) . ')');
	return;
}

sub attempt { return value("SELECT a.status || ' ' || coalesce(a.error_code, '-') FROM weir.attempt a WHERE run_id = $_[0] ORDER BY attempt_no DESC LIMIT 1") }
sub message { return value("SELECT coalesce(error_message, '') FROM weir.task_run WHERE run_id = $_[0]") }
sub output { return $json->decode(value("SELECT output FROM weir.task_run WHERE run_id = $_[0]")) }
sub run { my $run = weir_trigger($node, $_[0]); return ($run, wait_for_run($node, $run)) }
sub version_of { return value("SELECT token FROM weir.attempt WHERE run_id = $_[0] ORDER BY attempt_no DESC LIMIT 1") }
sub keys_of { my ($pattern) = @_; return scalar(grep { $_ ne '' } split(/\n/, redis('--scan', '--pattern', $pattern))) }

sub close_gate { value("BEGIN; SELECT pg_advisory_xact_lock($_[0]); PREPARE TRANSACTION 'gate $_[0]'"); return }
sub open_gate { value("ROLLBACK PREPARED 'gate $_[0]'"); return }
sub at_gate
{
	wait_until($node, 'the query waits at the gate',
		"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND objid = $_[0] AND NOT granted");
	return;
}

$node->safe_psql('postgres', qq{
	CREATE ROLE engineer LOGIN IN ROLE weir_admin;
	SET ROLE engineer;
	SELECT weir.create_connection('features', 'redis', '$url', options => '{"command_timeout": 20}');
});

# --- a version, and the next
value(q{CREATE TABLE source (id text, score numeric, seen timestamptz, note text); GRANT SELECT ON source TO engineer;
	INSERT INTO source VALUES ('a', 1.5, '2026-01-31 06:00+00', E'na\u00efve \r\n$5'), ('b', -2, NULL, ''), (E'c:\u20ac', NULL, NULL, NULL)});
publish('basic', 'SELECT id, score, seen, note FROM source WHERE id >= {{params.from}}', { verify => 'full', keep_old => 3600 },
	parameters => { from => { type => 'text', default => '' } });
my ($run, $status) = run('basic');
is($status, 'succeeded', 'published') or diag(message($run));
my $first = redis('GET', 'basic:current');
is($first, version_of($run), 'the pointer names the version, which is the token of the attempt');
is(redis('HGET', "basic:$first:a", 'score'), '1.5', 'a number');
is(redis('HGET', "basic:$first:a", 'seen'), '2026-01-31 06:00:00+00', 'a timestamp');
is(redis('HGET', "basic:$first:a", 'note'), "na\x{c3}\x{af}ve \r\n\$5", 'text with line ends and bytes above ASCII');
is(redis('HKEYS', "basic:$first:b"), "id\nscore\nnote", 'a null is no field, an empty text is one');
is(redis('HGETALL', "basic:$first:c:\x{e2}\x{82}\x{ac}"), "id\nc:\x{e2}\x{82}\x{ac}", 'all null leaves the key');
my $ttl = redis('TTL', "basic:$first:a");
my $pointer_ttl = redis('TTL', 'basic:current');
ok($ttl > 3000 && $ttl <= 3960, "a hash expires after the time and its jitter ($ttl)");
ok($pointer_ttl > 3000 && $pointer_ttl <= 3600 && $pointer_ttl <= $ttl, "the pointer not after it ($pointer_ttl)");
is(keys_of("basic:*"), 6, 'three hashes, the pointer, the index and the list of versions');
my $out = output($run);
is_deeply([ @$out{qw(version rowsWritten rowsCompared removedVersions)} ], [ $first, 3, 3, 0 ], 'the output has version and counts');
ok($out->{bytesWritten} > 100, 'and bytes');
is(value("SELECT rows_read || ' ' || rows_written FROM weir.task_run WHERE run_id = $run"), '3 3', 'so has the task run');

value(q{UPDATE source SET score = 7 WHERE id = 'a'; DELETE FROM source WHERE id LIKE 'c%'});
($run, $status) = run('basic');
is($status, 'succeeded', 'published again');
my $second = redis('GET', 'basic:current');
isnt($second, $first, 'the pointer moved');
is(redis('HGET', "basic:$second:a", 'score') . ' ' . redis('HGET', "basic:$first:a", 'score'), '7 1.5', 'both versions are there for a while');
is(output($run)->{previousVersion}, $first, 'the output names the old one');
is(redis('HKEYS', 'basic:versions'), $second, 'one version is listed');
is(redis('EXISTS', "basic:index:$first"), '0', 'the index of the old one is gone');

# --- when keys go: not all at once, none before its time, none after the jitter
# The milliseconds that are left to each key of a version; one script, so that hardly any pass between two of them.
sub expiries
{
	my ($name) = @_;
	my $script = "local t = {} for _, k in ipairs(redis.call('KEYS', ARGV[1])) do t[#t + 1] = redis.call('PTTL', k) end return t";
	return split(/\n/, redis('EVAL', $script, 0, "$name:" . redis('GET', "$name:current") . ':*'));
}
foreach my $case ([ spread => { ttl => '1 hour', ttl_jitter => 0.5 }, 3600, 5400 ], [ default_spread => { ttl => '1 hour' }, 3600, 3960 ], [ together => { ttl => '1 hour', ttl_jitter => 0 }, 3600, 3600 ])
{
	my ($name, $spec, $least, $most) = @$case;
	publish($name, 'SELECT n AS id, n * n AS square FROM generate_series(1, 1000) n', $spec);
	my $before = Time::HiRes::time();
	($run, $status) = run($name);
	is($status, 'succeeded', "$name: published") or diag(message($run));
	my @expiries = sort { $a <=> $b } expiries($name);
	my $passed = Time::HiRes::time() - $before;
	my ($first_to_go, $last_to_go) = map { $_ / 1000 } @expiries[ 0, -1 ];
	is(scalar(@expiries), 1000, "$name: all keys");
	cmp_ok($first_to_go, '>', $least - $passed - 1, "$name: none goes before its time");
	cmp_ok($last_to_go, '<=', $most + 1, "$name: none is there after the jitter");
	if ($most == $least)
	{
		cmp_ok($last_to_go - $first_to_go, '<', 1, "$name: without jitter they go together");
		next;
	}
	# Of a thousand evenly spread moments, each tenth of the time has about a hundred; none has under 40 or over 200.
	my $width = $most - $least;
	my @tenths = (0) x 10;
	foreach my $expiry (@expiries)
	{
		my $tenth = int(10 * ($expiry / 1000 - $first_to_go) / ($last_to_go - $first_to_go));
		$tenths[ $tenth > 9 ? 9 : $tenth ]++;
	}
	cmp_ok($last_to_go - $first_to_go, '>', 0.9 * $width, "$name: the keys go over all of the jitter");
	is(scalar(grep { $_ < 40 || $_ > 200 } @tenths), 0, "$name: evenly") or diag("@tenths");
}

publish('swift', 'SELECT id, score FROM source', { keep_old => 0, verify => 'count' });
run('swift');
$first = redis('GET', 'swift:current');
run('swift');
is(keys_of("swift:$first:*"), 0, 'keep_old 0: the old version goes at once');
ok(redis('EXISTS', 'swift:' . redis('GET', 'swift:current') . ':a'), 'the new one is there');

# --- what is wrong with the rows
publish('empty', 'SELECT id, score FROM source WHERE false', {});
($run) = run('empty');
is(attempt($run), 'failed redis_too_few_rows', 'no rows: readers keep what they have');
is(redis('EXISTS', 'empty:current'), '0', 'nothing was published');
publish('nothing', 'SELECT id, score FROM source WHERE false', { min_rows => 0 });
is((run('nothing'))[1], 'succeeded', 'unless that is wanted');
ok(redis('GET', 'nothing:current') =~ /^weir-/, 'an empty version is a version');
publish('twice', "SELECT 'same' AS id, n FROM generate_series(1, 3) n", {});
($run) = run('twice');
is(attempt($run), 'failed redis_duplicate_entity', 'two rows for one key');
like(message($run), qr/more than one row of the query has the key "same"/, 'are named');
is(keys_of('twice:*'), 0, 'and nothing is left');
publish('keyless', 'SELECT CASE WHEN n < 9 THEN n END AS id FROM generate_series(1, 9) n', {});
($run) = run('keyless');
is(attempt($run), 'failed redis_no_key', 'a row without key');
is(keys_of('keyless:*'), 0, 'nothing is left of the others');
publish('nocolumn', 'SELECT 1 AS other', {});
is(attempt((run('nocolumn'))[0]), 'failed redis_no_key', 'no such column');
publish('columns', 'SELECT 1 AS id, 2 AS id', {});
is(attempt((run('columns'))[0]), 'failed redis_columns', 'two columns of one name');
publish('writes', q{WITH gone AS (DELETE FROM source RETURNING id) SELECT id FROM gone}, {});
is(attempt((run('writes'))[0]), 'failed 0A000', 'the query cannot write');
publish('denied', 'SELECT rolname AS id FROM pg_authid', {});
is(attempt((run('denied'))[0]), 'failed 42501', 'it runs as the owner');
publish('crooked', 'SELECT id FROM source', { prefix => '{{params.prefix}}' },
	parameters => { prefix => { type => 'text', default => 'two words' } });
is(attempt((run('crooked'))[0]), 'failed invalid_reference', 'what references become is checked again');

# --- what is wrong in Redis
close_gate(1);
my $gated = 'SELECT n AS id, n * 2 AS twice FROM generate_series(1, 2000) n, (SELECT pg_advisory_xact_lock_shared(1)) gate';
publish('foreign', $gated, {});
$run = weir_trigger($node, 'foreign');
at_gate(1);
redis('SET', 'foreign:' . version_of($run) . ':1234', 'a string');
open_gate(1);
wait_for_run($node, $run);
is(attempt($run), 'failed redis_wrong_type', 'a key of another type');
is(redis('EXISTS', 'foreign:current'), '0', 'readers see nothing of it');
is(keys_of('foreign:*'), 0, 'and nothing is left');

foreach my $verify (qw(sample full))
{
	close_gate(1);
	publish("tampered_$verify", $gated, { verify => $verify });
	$run = weir_trigger($node, "tampered_$verify");
	at_gate(1);
	redis('HSET', "tampered_$verify:" . version_of($run) . ':1235', 'foreign', 'hand');
	open_gate(1);
	wait_for_run($node, $run);
	is(attempt($run), 'failed redis_verification_failed', "verify $verify: a hash that is not what was written");
	like(message($run), qr/:1235" does not have the fields that were written/, 'is named');
	is(keys_of("tampered_$verify:*"), 0, 'nothing is left of the version');
}
publish('kept', 'SELECT id, score FROM source', {});
run('kept');
redis('SET', 'kept:versions', 'no hash');
($run) = run('kept');
is(attempt($run), 'failed redis_wrong_type', 'a foreign key in the place of the list of versions');

start_redis('small', '--maxmemory', '3mb', '--maxmemory-policy', 'noeviction');
start_redis('evicting', '--maxmemory', '3mb', '--maxmemory-policy', 'allkeys-random');
foreach my $name (qw(small evicting))
{
	value("SET ROLE engineer; SELECT weir.create_connection('$name', 'redis', 'redis://localhost:$servers{$name}{port}')");
	publish($name, "SELECT n AS id, repeat('x', 1000) AS x FROM generate_series(1, 20000) n", { verify => 'count' }, connection => $name);
	($run) = run($name);
	is(attempt($run), $name eq 'small' ? 'failed redis_out_of_memory' : 'failed redis_verification_failed', "$name: " . message($run));
	is(redis_try($name, 'EXISTS', "$name:current"), '0', 'readers see nothing of it');
	stop_redis($name);
}
like(value("SELECT detail FROM weir.error WHERE code = 'redis_out_of_memory' LIMIT 1"), qr/maxmemory/, 'with a hint');

start_redis('replica', '--replicaof', "127.0.0.1 $servers{main}{port}");
value("SET ROLE engineer; SELECT weir.create_connection('replica', 'redis', 'redis://127.0.0.1:$servers{replica}{port}')");
until_true('the replica has synchronised', sub { redis_try('replica', 'INFO', 'replication') =~ /master_link_status:up/ });
publish('replica', 'SELECT id FROM source', {}, connection => 'replica');
is(attempt((run('replica'))[0]), 'failed redis_read_only', 'a replica');
stop_redis('replica');

# --- readers, while versions follow each other: never a mixture
value('CREATE SEQUENCE turn; GRANT ALL ON turn TO engineer');
publish('turns', 'SELECT n AS id, {{params.turn}} AS turn FROM generate_series(1, 3000) n', { keep_old => '1 minute', batch_rows => 7 },
	parameters => { turn => { type => 'bigint', default => 0 } });
my ($mixed, $seen, $last) = (0, 0, 0);
foreach my $turn (1 .. 10)
{
	$run = value("SELECT weir.trigger('turns', '{\"turn\": $turn}')");
	do
	{
		my $version = redis('GET', 'turns:current');
		if ($version ne '')
		{
			my %turns = map { $_ => 1 } split(/\n/, redis('EVAL',
				"local r = {} for i = 1, 3000 do r[i] = redis.call('HGET', 'turns:' .. ARGV[1] .. ':' .. i, 'turn') or 'none' end return r", 0, $version));
			my ($now) = keys %turns;
			$mixed++ if keys %turns != 1 || $now eq 'none' || $now < $last;
			$last = $now;
			$seen++;
		}
	} while (value("SELECT status IN ('queued', 'running') FROM weir.run WHERE run_id = $run") eq 't');
	wait_for_run($node, $run);
}
ok($seen > 0, "readers looked $seen times");
is($mixed, 0, 'and never saw a mixture, an absent key or an older version');

# --- round trips: a batch of writes, and one of what is read back, is sent without a word from Redis in between
# A relay that keeps back what Redis says from MULTI to EXEC, and from the first row that is read back to the last.
my $rows = 300;
sub keep_back
{
	my ($listener) = @_;
	local $SIG{PIPE} = 'IGNORE';
	while (my $client = $listener->accept)
	{
		my $server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $servers{main}{port}) or die "connect: $!";
		my $said = '';
		my $open = 1;
		while ($open)
		{
			my $begun = () = $said =~ /^\*1\r\n\$5\r\nMULTI\r$/mg;
			my $ended = () = $said =~ /^\*1\r\n\$4\r\nEXEC\r$/mg;
			my $read = () = $said =~ /^HGETALL\r\n\$\d+\r\nflights:weir-[^:]+:\d+\r$/mg;
			my $is_held = $begun > $ended || ($read > 0 && $read < $rows);
			foreach my $from (IO::Select->new($client, $is_held ? () : $server)->can_read)
			{
				my $bytes = '';
				$open &&= sysread($from, $bytes, 65536);
				$said .= $bytes if $from == $client;
				$open &&= print { $from == $client ? $server : $client } $bytes;
			}
		}
	}
	return;
}
sub calls { my ($command) = @_; return redis('INFO', 'commandstats') =~ /^cmdstat_$command:calls=(\d+)/m ? $1 : 0 }
my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 5) or die "listen: $!";
$servers{relay}{pid} = fork_helper("$dir/relay.log", sub { keep_back($listener) });
value("SET ROLE engineer; SELECT weir.create_connection('relayed', 'redis', 'redis://127.0.0.1:" . $listener->sockport . "', options => '{\"command_timeout\": 20}')");
publish('flights', "SELECT n AS id, n * 2 AS twice FROM generate_series(1, $rows) n", { batch_rows => 100, verify => 'full' }, connection => 'relayed');
my ($multi, $hgetall) = map { calls($_) } 'multi', 'hgetall';
($run, $status) = run('flights');
is($status, 'succeeded', 'batches are sent at one go, and what is read back is asked for at one go') or diag(message($run));
is(calls('multi') - $multi, $rows / 100 + 1, 'three batches, and the switch');
is(calls('hgetall') - $hgetall, $rows + 1, 'and a look at every row, and at the versions');
stop_redis('relay');
close $listener;

# --- the middle of writing
my $many = "SELECT n AS id, md5(n::text) AS a, repeat('y', 100) AS b FROM generate_series(1, 60000) n";

# Runs a pipeline until Redis holds some of the version, and stops Redis there.
sub stop_in_the_middle
{
	my ($name) = @_;
	my $run = weir_trigger($node, $name);
	my $before = redis('DBSIZE');
	until_true("$name writes", sub { redis('DBSIZE') > $before + 1000 });
	kill 'STOP', $servers{main}{pid};
	return $run;
}

publish('killed', $many, { batch_rows => 5, keep_old => 0 }, @retry);
$run = stop_in_the_middle('killed');
my $dead = version_of($run);
my $worker = value("SELECT worker_pid FROM weir.attempt WHERE run_id = $run");
my $log = -s $node->logfile;
kill('KILL', $worker) == 1 or die "kill $worker: $!";
wait_for_restart($node, $log);
kill 'CONT', $servers{main}{pid};
is(wait_for_run($node, $run), 'succeeded', 'the worker is killed in the middle: the next attempt publishes') or diag(message($run));
isnt(redis('GET', 'killed:current'), $dead, 'as another version');
is(keys_of("killed:$dead:*") + keys_of("killed:index:$dead"), 0, 'what the dead one left is removed');
is(output($run)->{removedVersions}, 1, 'and counted');
is(redis('HLEN', 'killed:versions'), '1', 'one version is listed');
is(keys_of('killed:*'), 60003, 'nothing else is there');
is(value("SELECT string_agg(status, ',' ORDER BY attempt_no) FROM weir.attempt WHERE run_id = $run"), 'lost,succeeded', 'two attempts');

publish('died', $many, { batch_rows => 5 }, @retry);
$run = stop_in_the_middle('died');
stop_redis('main');
wait_until($node, 'the attempt notices', "SELECT count(*) > 0 FROM weir.attempt WHERE run_id = $run AND error_code = 'redis_unreachable' AND error_message LIKE '%lost%'");
start_redis('main');
is(wait_for_run($node, $run), 'succeeded', 'Redis is killed in the middle: a retry publishes when it is back');
is(keys_of('died:' . redis('GET', 'died:current') . ':*'), 60000, 'all of it');

# --- cancel while Redis hangs
publish('hangs', $many, { batch_rows => 5 });
$run = stop_in_the_middle('hangs');
is(value("SELECT xact_start IS NULL AND backend_xmin IS NULL FROM pg_stat_activity WHERE pid = (SELECT worker_pid FROM weir.attempt WHERE run_id = $run)"),
	't', 'no transaction is open while Redis is waited for');
is(value("SELECT weir.cancel($run, 'enough')"), 't', 'a cancel while Redis says nothing');
is(wait_for_run($node, $run), 'cancelled', 'ends the run');
kill 'CONT', $servers{main}{pid};
is(redis('EXISTS', 'hangs:current'), '0', 'nothing was switched');
my $cancelled = version_of($run);
ok(keys_of("hangs:$cancelled:*") > 0, 'what it wrote is still there');
is(redis('--scan', '--pattern', "hangs:$cancelled:*") =~ /^(.*)$/m ? redis('TTL', $1) > 0 : 0, 1, 'and expires');
is((run('hangs'))[1], 'succeeded', 'the next run publishes');
is(keys_of("hangs:$cancelled:*"), 0, 'and removes it');

value("SET ROLE engineer; SELECT weir.alter_connection('features', options => '{\"command_timeout\": 0.2}')");
kill 'STOP', $servers{main}{pid};
publish('mute', 'SELECT id FROM source', {});
($run) = run('mute');
kill 'CONT', $servers{main}{pid};
is(attempt($run), 'failed redis_timeout', 'a server that says nothing is given up');
close_gate(2);
publish('deadline', 'SELECT id FROM source, (SELECT pg_advisory_xact_lock_shared(2)) gate', { statement_timeout => '200 milliseconds' });
is(attempt((run('deadline'))[0]), 'failed 57014', 'the statement timeout is the query\'s');
open_gate(2);
value("SET ROLE engineer; SELECT weir.alter_connection('features', options => '{\"database\": 3}')");
is((run('swift'))[1], 'succeeded', 'another database');
is(redis('-n', 3, 'EXISTS', 'swift:current'), '1', 'has it');

# --- signing in
my $password = 'correct horse battery';
start_redis('locked', '--requirepass', $password);
$servers{locked}{cli} = [ '--no-auth-warning', '-a', $password ];
my $wrong = 'Tr0ub4dor-and-three';
value("SELECT weir.create_secret('redis_password', '$password'); SELECT weir.create_secret('wrong_password', '$wrong')");
my $locked = "'redis', 'redis://127.0.0.1:$servers{locked}{port}'";
value("SELECT weir.create_connection('locked', $locked, '{\"type\": \"basic\", \"username\": \"default\", \"password\": \"redis_password\"}')");
value("SELECT weir.create_connection('wrong', $locked, '{\"type\": \"basic\", \"username\": \"default\", \"password\": \"wrong_password\"}')");
value("SELECT weir.create_connection('anonymous', $locked)");
publish('locked', 'SELECT id FROM source', {}, connection => 'locked');
is((run('locked'))[1], 'succeeded', 'signed in with the secret');
publish('wrong', 'SELECT id FROM source', {}, connection => 'wrong');
($run) = run('wrong');
is(attempt($run), 'failed redis_sign_in', 'a wrong password');
publish('anonymous', 'SELECT id FROM source', {}, connection => 'anonymous');
is(attempt((run('anonymous'))[0]), 'failed redis_sign_in', 'none where one is wanted');
redis_try('locked', 'ACL', 'SETUSER', 'looker', 'on', ">$password", '~*', '+@read', '+time', '+ping');
value("SELECT weir.create_connection('looker', $locked, '{\"type\": \"basic\", \"username\": \"looker\", \"password\": \"redis_password\"}')");
publish('looker', 'SELECT id FROM source', {}, connection => 'looker');
is(attempt((run('looker'))[0]), 'failed redis_permission', 'a user that may only read');
unlike(slurp_file($node->logfile) . value('SELECT string_agg(to_jsonb(a)::text, E\'\n\') FROM weir.attempt a')
	. value('SELECT string_agg(to_jsonb(e)::text, E\'\n\') FROM weir.error e'),
	qr/\Q$wrong\E|password.{0,20}\Q$password\E/, 'no password in what was recorded');

# --- TLS under a private authority
sub openssl { my ($out, $err) = ('', ''); IPC::Run::run([ 'openssl', @_ ], '<', \'', '>', \$out, '2>', \$err) or die "openssl @_: $err"; return }
SKIP:
{
	skip 'there is no openssl', 4 unless grep { -x "$_/openssl" } split(/:/, $ENV{PATH});
	append_to_file("$dir/san", 'subjectAltName = DNS:localhost');
	openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', 2, '-subj', '/CN=private authority', '-keyout', "$dir/ca.key", '-out', "$dir/ca.pem");
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=localhost', '-keyout', "$dir/server.key", '-out', "$dir/server.csr");
	openssl('x509', '-req', '-in', "$dir/server.csr", '-CA', "$dir/ca.pem", '-CAkey', "$dir/ca.key", '-CAcreateserial', '-days', 2,
		'-extfile', "$dir/san", '-out', "$dir/server.pem");
	$servers{tls}{cli} = [ '--tls', '--cacert', "$dir/ca.pem", '--sni', 'localhost' ];
	$servers{tls}{port} = PostgreSQL::Test::Cluster::get_free_port();
	$servers{tls}{more} = [ '--tls-port', '--tls-cert-file', "$dir/server.pem", '--tls-key-file', "$dir/server.key",
		'--tls-ca-cert-file', "$dir/ca.pem", '--tls-auth-clients', 'no' ];
	start_redis('tls');
	my $options = literal($json->encode({ ca_certificate => slurp_file("$dir/ca.pem") }));
	value("SELECT weir.create_connection('tls', 'redis', 'rediss://localhost:$servers{tls}{port}', options => $options)");
	value("SELECT weir.create_connection('tls_address', 'redis', 'rediss://127.0.0.1:$servers{tls}{port}', options => $options)");
	value("SELECT weir.create_connection('tls_unknown', 'redis', 'rediss://localhost:$servers{tls}{port}')");
	value("SELECT weir.create_connection('tls_plain', 'redis', 'redis://localhost:$servers{tls}{port}')");
	publish('tls', $many, { verify => 'full' }, connection => 'tls');
	($run, $status) = run('tls');
	is($status, 'succeeded', 'TLS with the authority of the connection') or diag(message($run));
	publish('tls_unknown', 'SELECT id FROM source', {}, connection => 'tls_unknown');
	is(attempt((run('tls_unknown'))[0]), 'failed redis_certificate', 'an authority nobody knows');
	publish('tls_address', 'SELECT id FROM source', {}, connection => 'tls_address');
	is(attempt((run('tls_address'))[0]), 'failed redis_certificate', 'a certificate for another name');
	publish('tls_plain', 'SELECT id FROM source', {}, connection => 'tls_plain');
	like(attempt((run('tls_plain'))[0]), qr/failed redis_(unreachable|protocol)/, 'without TLS there is no talking to it');
}

# --- where it may not go
my ($rc, $out2, $err2) = $node->psql('postgres', "SELECT weir.create_connection('far', 'redis', 'redis://192.0.2.1:6379')");
like($err2, qr/not in weir.allowed_hosts/, 'the policy holds for Redis');
$node->append_conf('postgresql.conf', "weir.allowed_private_networks = '10.0.0.0/8'");
$node->reload;
wait_until($node, 'the setting is in force', q{SELECT current_setting('weir.allowed_private_networks') = '10.0.0.0/8'});
value("UPDATE weir.connection SET base_url = 'redis://localhost:$servers{main}{port}' WHERE name = 'features'");
($run) = run('swift');
is(attempt($run), 'failed redis_refused', 'the address is looked at when connecting');
$node->append_conf('postgresql.conf', "weir.allowed_private_networks = '127.0.0.0/8'");
$node->reload;

# --- memory
publish('small_load', "SELECT n AS id, repeat(md5(n::text), 20) AS x FROM generate_series(1, 1000) n", { verify => 'full' });
publish('large_load', "SELECT n AS id, repeat(md5(n::text), 20) AS x FROM generate_series(1, 100000) n", { verify => 'full' });
sub peak { return slurp_file("/proc/$_[0]/status") =~ /VmHWM:\s+(\d+) kB/ ? $1 : die 'no VmHWM' }
($run) = run('small_load');
my $small_worker = value("SELECT worker_pid FROM weir.attempt WHERE run_id = $run");
my $small_peak = peak($small_worker);
($run, $status) = run('large_load');
is($status, 'succeeded', '100,000 rows') or diag(message($run));
SKIP:
{
	skip 'the server is preloaded with a sanitizer', 1 if $ENV{WEIR_ASAN};
	skip 'another worker ran it', 1 if value("SELECT worker_pid FROM weir.attempt WHERE run_id = $run") ne $small_worker;
	my $large_peak = peak($small_worker);
	cmp_ok($large_peak - $small_peak, '<', 24 * 1024, "64 MB are published in flat memory: $small_peak kB after 1,000 rows, $large_peak kB after 100,000");
}

$node->stop;
done_testing();
