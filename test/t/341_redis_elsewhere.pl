# Publishing into Redis where the password is in a key vault, where the server
# is a node of a cluster, where it announces replies nobody could hold, and in
# weir.conduct(), without a worker.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use IO::Socket::INET;
use IPC::Run;
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes;

use WeirSignIn;
use WeirHelper;
use WeirTest;

my $program = (grep { -x } map { "$_/redis-server" } split(/:/, $ENV{PATH}))[0];
plan skip_all => 'there is no redis-server' unless defined $program;

my $json = JSON::PP->new->canonical->ascii;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = weir_node('redis', conf => "weir.sql_worker_idle_timeout = 60s\n");
my $cloud = weir_cloud($node);
my $address = $cloud->address;
my @pids;
END { my $status = $?; foreach my $pid (@pids) { kill 'KILL', $pid; waitpid($pid, 0); } $? = $status; }

sub value { return $node->safe_psql('postgres', $_[0]) }

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

sub redis
{
	my ($port, @command) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'redis-cli', '--no-auth-warning', '-h', '127.0.0.1', '-p', $port, @command ], '<', \'', '>', \$out, '2>', \$err);
	chomp $out;
	return $out;
}

# A child that becomes a server, or is one.
sub child
{
	my ($run) = @_;
	push @pids, fork_helper("$dir/servers.log", $run);
	return;
}

sub start_redis
{
	my ($port, @more) = @_;
	mkdir "$dir/$port";
	child(sub { exec($program, '--bind', '127.0.0.1', '--port', $port, '--save', '', '--appendonly', 'no', '--dir', "$dir/$port", @more) });
	until_true("redis at $port answers", sub { redis($port, 'PING') =~ /PONG|NOAUTH/ });
	return $port;
}

sub publish
{
	my ($name, $connection, %spec) = @_;
	my $task = { name => 'publish', kind => 'redis_publish', connection => $connection,
		spec => { sql => 'SELECT n AS id, n * 2 AS twice FROM generate_series(1, 1000) n', key => 'id', prefix => $name, ttl => '1 hour', %spec } };
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => [$task],
					retry => { max_attempts => 1 } })) . ')');
	return;
}

sub attempt { return value("SELECT a.status || ' ' || coalesce(a.error_code, '-') FROM weir.attempt a WHERE run_id = $_[0] ORDER BY attempt_no DESC LIMIT 1") }
sub message { return value("SELECT coalesce(error_message, '') FROM weir.task_run WHERE run_id = $_[0]") }
sub hint { return value("SELECT coalesce(max(detail), '') FROM weir.error WHERE run_id = $_[0]") }
sub run { my $run = weir_trigger($node, $_[0]); return ($run, wait_for_run($node, $run)) }

# --- a password in a key vault
my $http = HTTP::Tiny->new;
sub put
{
	my ($name, $value) = @_;
	my $token = decode_json($http->post_form("$address/local/oauth2/v2.0/token", {
				grant_type => 'client_credentials', client_id => 'weir-client', client_secret => 'weir-secret',
				scope => 'https://vault.azure.net/.default' })->{content})->{access_token};
	my $answer = $http->request('PUT', "$address/vault/secrets/$name?api-version=7.4",
		{ headers => { Authorization => "Bearer $token", 'Content-Type' => 'application/json' }, content => encode_json({ value => $value }) });
	die "$answer->{status} $answer->{content}" unless $answer->{success};
	return;
}

my $locked = start_redis(PostgreSQL::Test::Cluster::get_free_port(), '--requirepass', 'first-password-of-redis');
create_secret($node, 'vault_secret', 'weir-secret');
create_connection($node, 'vault', 'keyvault', "$address/vault",
	{ type => 'entra_client_secret', client_id => 'weir-client', client_secret => 'vault_secret', tenant_id => 'local', authority => $address });
put('redis', 'first-password-of-redis');
create_connection($node, 'locked', 'redis', "redis://127.0.0.1:$locked", { type => 'basic', username => 'default', password => 'keyvault:vault/redis' });
publish('vaulted', 'locked');
my ($run, $status) = run('vaulted');
is($status, 'succeeded', 'the password is in a key vault') or diag(message($run));
is($cloud->requests('keyvault.get'), 1, 'which is asked once');
is(value(q{SELECT is_ok || ' ' || sign_in FROM weir.test_connection('locked')}), 'true ok', 'test_connection() asks it too');
redis($locked, '-a', 'first-password-of-redis', 'CONFIG', 'SET', 'requirepass', 'second-password-of-redis');
($run) = run('vaulted');
is(attempt($run), 'failed redis_sign_in', 'a password that was changed');
put('redis', 'second-password-of-redis');
is((run('vaulted'))[1], 'succeeded', 'and put into the vault');
value("SELECT weir.create_secret('kept', reference => 'keyvault:vault/gone')");
create_connection($node, 'gone', 'redis', "redis://127.0.0.1:$locked", { type => 'basic', username => 'default', password => 'kept' });
publish('gone', 'gone');
($run) = run('gone');
is(attempt($run), 'failed sign_in_failed', 'a secret that is not in the vault');
like(message($run), qr/secret "gone" of key vault "vault": the key vault has no such secret/, 'is told');
like(value(q{SELECT sign_in || ' ' || detail FROM weir.test_connection('gone')}), qr/^failed secret "gone" of key vault/, 'by test_connection() as well');
$cloud->reset;
$cloud->add_fault(operation => 'keyvault.get', fault => 'hold', times => 1);
$run = weir_trigger($node, 'vaulted');
$cloud->wait(operation => 'keyvault.get', count => 1);
wait_until($node, 'the worker waits for the vault', "SELECT count(*) = 1 FROM pg_stat_activity s JOIN weir.attempt a ON a.worker_pid = s.pid WHERE a.run_id = $run AND s.wait_event_type = 'Extension'");
is(value("SELECT xact_start IS NULL AND backend_xmin IS NULL FROM pg_stat_activity WHERE pid = (SELECT worker_pid FROM weir.attempt WHERE run_id = $run)"),
	't', 'no transaction is open meanwhile');
value("SELECT weir.cancel($run, 'enough')");
is(wait_for_run($node, $run), 'cancelled', 'a vault that does not answer does not keep a cancel from coming through');
$cloud->clear_faults;
unlike(slurp_file($node->logfile) . value('SELECT string_agg(to_jsonb(a)::text, E\'\n\') FROM weir.attempt a') . value('SELECT string_agg(to_jsonb(e)::text, E\'\n\') FROM weir.error e'),
	qr/(?:first|second)-password-of-redis/, 'no password in what was recorded');

# --- a cluster of two nodes
my @ports = map { start_redis($_, '--cluster-enabled', 'yes', '--cluster-port', PostgreSQL::Test::Cluster::get_free_port(), '--cluster-node-timeout', 5000) }
  map { PostgreSQL::Test::Cluster::get_free_port() } 1, 2;
sub bus { return (split(/[@ ,]/, redis($_[0], 'CLUSTER', 'NODES')))[2] }
redis($ports[0], 'CLUSTER', 'ADDSLOTS', 0 .. 8191);
redis($ports[1], 'CLUSTER', 'ADDSLOTS', 8192 .. 16383);
redis($ports[0], 'CLUSTER', 'MEET', '127.0.0.1', $ports[1], bus($ports[1]));
until_true('the cluster is there', sub { 2 == grep { redis($_, 'CLUSTER', 'INFO') =~ /cluster_state:ok.*cluster_known_nodes:2/s } @ports });
create_connection($node, "node$_", 'redis', "redis://127.0.0.1:$ports[$_]", { type => 'none' }) foreach 0, 1;

# Prefixes whose slots are on the one node and on the other
my %home;
foreach my $letter ('a' .. 'z')
{
	my $slot = redis($ports[0], 'CLUSTER', 'KEYSLOT', "{$letter}:current");
	$home{ $slot < 8192 ? 0 : 1 } //= $letter;
}
foreach my $home (0, 1)
{
	foreach my $through (0, 1)
	{
		my $name = "home${home}_through$through";
		publish($name, "node$through", prefix => "{$home{$home}}_$through", verify => 'full');
		($run, $status) = run($name);
		is($status, 'succeeded', "the node that has the slot is found: $name") or diag(message($run));
		my $version = redis($ports[$home], 'GET', "{$home{$home}}_$through:current");
		is(redis($ports[$home], 'HGET', "{$home{$home}}_$through:$version:7", 'twice'), '14', 'and has the rows');
	}
}
my ($far) = grep { redis($ports[0], 'CLUSTER', 'KEYSLOT', "$_:current") > 8191 } map { "plain$_" } 1 .. 50;
publish('plain', 'node0', prefix => $far);
($run) = run('plain');
is(attempt($run), 'failed redis_cluster', 'without braces the keys have many slots');
like(hint($run), qr/Put braces around a part of "prefix"/, 'the hint says what to do');

# A node where it may not go: an address the policy refuses
redis($ports[1], 'CONFIG', 'SET', 'cluster-announce-ip', '192.0.2.7');
until_true('the other node knows', sub { redis($ports[0], 'CLUSTER', 'NODES') =~ /192\.0\.2\.7/ });
publish('refused', 'node0', prefix => "{$home{1}}_refused");
($run) = run('refused');
is(attempt($run), 'failed redis_refused', 'a node where it may not go');
like(message($run), qr/the cluster has the keys on its node 192\.0\.2\.7:\d+: .*allowed_hosts/, 'is named') or diag(message($run));

# --- replies that are announced, and are too large for anybody
my %says = (
	array => "*2000000000\r\n", nested => "*1\r\n" x 9, string => "\$2147483647\r\n", other => "HTTP/1.1 400 Bad Request\r\n\r\n",
	stream => undef);
foreach my $what (sort keys %says)
{
	my $server = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', Proto => 'tcp') or die "socket: $!";
	child(
		sub {
			while (my $client = $server->accept)
			{
				# PING first, then what begins a version
				sysread($client, my $ping, 65536);
				syswrite($client, "+PONG\r\n");
				sysread($client, my $begin, 65536);
				local $SIG{PIPE} = 'IGNORE';
				my $answer = $says{$what} // '*1000000' . "\r\n\$65536\r\n" . 'x' x 65536 . "\r\n";
				1 while syswrite($client, $answer) && !defined $says{$what};
				sysread($client, my $rest, 65536);
			}
		});
	create_connection($node, "says_$what", 'redis', 'redis://127.0.0.1:' . $server->sockport, { type => 'none' });
	publish("says_$what", "says_$what");
	($run) = run("says_$what");
	is(attempt($run), 'failed redis_protocol', "$what: " . message($run));
	my $pid = value("SELECT worker_pid FROM weir.attempt WHERE run_id = $run");
	my ($peak) = slurp_file("/proc/$pid/status") =~ /VmPeak:\s+(\d+) kB/;
  SKIP:
	{
		skip 'the server is preloaded with a sanitizer', 1 if $ENV{WEIR_ASAN};
		cmp_ok($peak, '<', 1024 * 1024, "$what: memory was not asked for ($peak kB)");
	}
	close $server;
}

# --- without a worker
$node->append_conf('postgresql.conf', 'weir.enabled = off');
$node->reload;
wait_until($node, 'the conductor is gone', "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type LIKE 'weir conductor%'");
sub conduct { my ($name) = @_; my $run = weir_trigger($node, $name); value('CALL weir.conduct()'); return $run }
$run = conduct('vaulted');
is(attempt($run), 'succeeded -', 'weir.conduct() publishes too, with a password of a key vault') or diag(message($run));
$run = conduct('home1_through0');
is(attempt($run), 'failed redis_refused', 'what fails there is an outcome');
my $plain = start_redis(PostgreSQL::Test::Cluster::get_free_port());
create_connection($node, 'plain', 'redis', "redis://127.0.0.1:$plain", { type => 'none' });
publish('twice', 'plain', sql => 'SELECT 1 AS id FROM generate_series(1, 2)');
publish('broken', 'plain', sql => 'SELECT 1 / 0 AS id');
publish('good', 'plain', keep_old => 0);
is(attempt(conduct('twice')), 'failed redis_duplicate_entity', 'so are rows that do not fit');
is(attempt(conduct('broken')), 'failed 22012', 'and a query that fails');
is(attempt(conduct('good')), 'succeeded -', 'and the next one publishes');
my $version = redis($plain, 'GET', 'good:current');
is(redis($plain, 'HGET', "good:$version:1000", 'twice'), '2000', 'all of it');
is(redis($plain, 'HLEN', 'good:versions'), '1', 'as one version');

# A client that gives up ends the call; the next call finds the attempt lost.
my ($out, $err) = ('', '');
kill 'STOP', $pids[-1];
$run = weir_trigger($node, 'good');
my $client = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', 'CALL weir.conduct()' ], '<', \'', '>', \$out, '2>', \$err);
wait_until($node, 'the session waits for Redis', "SELECT count(*) = 1 FROM pg_stat_activity WHERE query = 'CALL weir.conduct()' AND wait_event_type = 'Extension' AND backend_xmin IS NULL AND (SELECT request IS NOT NULL FROM weir.attempt WHERE run_id = $run)");
value("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query = 'CALL weir.conduct()' AND pid <> pg_backend_pid()");
$client->finish;
like($err, qr/canceling statement due to user request/, 'a cancel of the call ends it');
kill 'CONT', $pids[-1];
value('CALL weir.conduct()');
is(value("SELECT string_agg(a.status, ',' ORDER BY attempt_no) FROM weir.attempt a WHERE run_id = $run"), 'lost,succeeded',
	'the attempt is found lost, and the next one publishes');
is(redis($plain, 'HLEN', 'good:versions'), '1', 'and nothing is left of the lost one');

$node->stop;
done_testing();
