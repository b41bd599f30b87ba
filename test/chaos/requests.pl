# requests.pl - "make soak PART=requests" and "PART=valgrind": a conductor that
# is watched (by AddressSanitizer, UBSan and LeakSanitizer, or by valgrind) sends
# a great many requests, of all kinds at once, to the local cloud under changing
# weather, to services whose answers are damaged in every way (garbler.py,
# garbler_redis.py), and to services each of whose tasks asks very often (mill.py).  Every pipeline begins again when its run has ended, now and
# then one is cancelled.  What is looked for: that it is the same process at the
# end, that nothing but tasks has failed, that every run came to an end, and that
# its memory has not grown.
#
#   REQUESTS=N   begin nothing new once the Nth request was answered (100000)
#   ITEMS=N      tasks of each kind in a run (150; under valgrind 10)
#   SEED=N       the seed of weather and damage, printed
#
# UNDER=valgrind in the environment: everything takes thirty times as long, so
# that it is looked at seldom and waited for long.  Most of that time would be
# that of SQL, which each attempt needs before and after its requests: so all but
# one of thirty requests are the mill's, whose tasks make hundreds each.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;

use LongTasks;
use WeirTest;

my $wanted = $ENV{REQUESTS} || 100_000;
my $is_slow = ($ENV{UNDER} // '') eq 'valgrind';
my $items = $ENV{ITEMS} || ($is_slow ? 10 : 150);
my $seed = $ENV{SEED} || int(rand(1_000_000)) + 1;
my $json = JSON::PP->new->canonical->ascii->allow_nonref;
my $true = JSON::PP::true;
my $in_progress = "status IN ('queued', 'running', 'cancelling')";
my $patience = $PostgreSQL::Test::Utils::timeout_default * ($is_slow ? 1 : 3);

srand($seed);
note("SEED=$seed REQUESTS=$wanted");

my $node = weir_node('requests', start => 0);
my $cloud = weir_cloud(undef, speed => 50);
my $address = $cloud->address;
my @children;
my ($garbled, $garbled_redis) = start_garbler();
my $redis = start_redis();
# tasks of hundreds of requests each: nearly all of them where a statement takes long
my $long = LongTasks->start(dir => PostgreSQL::Test::Utils::tempdir(), seed => $seed, length => int($wanted / 50) > 1000 ? 1000 : int($wanted / 50) + 4,
	items => $is_slow ? 6 : 3);
push @children, $long->pid;
$node->append_conf('postgresql.conf', "weir.http_timeout = '5s'\nweir.identity_endpoint = '$garbled/token'\nweir.retention_runs = 0\n"
	  . ($is_slow ? "weir.cancel_grace = '10s'\nautovacuum_naptime = 5min\n" : "autovacuum_naptime = 10s\n"));
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION weir');
{
	no warnings 'redefine', 'once';
	*PostgreSQL::Test::BackgroundPsql::note = sub { };		# of every statement
}
my $session = $node->background_psql('postgres');
$session->set_query_timer_restart;		# its patience is for a statement, not for all of them

sub value { return $session->query_safe($_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
sub id { return sprintf('00000000-0000-4000-8000-%012d', $_[0]) }
sub any { return $_[ int(rand(@_)) ] }

# --- the services

sub start_garbler
{
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', "$dir/garbler.log");
		open(STDERR, '>&', \*STDOUT);
		exec('python3', '-B', "$WeirTest::root/test/chaos/garbler.py", '--dir', $dir, '--seeds', "$WeirTest::root/test/fuzz/seeds", '--seed', $seed)
		  or exit 127;
	}
	my $limit = time + 60;
	push @children, $pid;
	until (-s "$dir/garbler.address")
	{
		die "the garbler did not start, see $dir/garbler.log" if waitpid($pid, 1) != 0 || time > $limit;
		select(undef, undef, undef, 0.02);
	}
	return split /\n/, PostgreSQL::Test::Utils::slurp_file("$dir/garbler.address");
}

# A real one, if there is one; its port, or undef.
sub start_redis
{
	my $program = (grep { -x } map { "$_/redis-server" } split(/:/, $ENV{PATH}))[0] // return;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', "$dir/redis.log");
		open(STDERR, '>&', \*STDOUT);
		exec($program, '--bind', '127.0.0.1', '--port', $port, '--save', '', '--appendonly', 'no', '--dir', $dir) or exit 127;
	}
	push @children, $pid;
	return $port;
}

$SIG{TERM} = sub { exit 143 };

sub END
{
	local $?;
	kill('TERM', @children) if @children;
}

# Requests to the cloud, to the garbler, to the mill, and commands of Redis to the
# garbler, as they say.  The cloud remembers every run and file, and forgets them now and then: so do services.
my $forgotten = 0;
my ($cloudy_before, $damaged_before, $commands_before) = (0, 0, 0);

sub answered
{
	my $counts = eval { $cloud->counts };
	my $damaged = HTTP::Tiny->new->get("$garbled/_count");
	my $cloudy = 0;

	# one that is too busy to tell is asked the next time
	return ($cloudy_before, $damaged_before, ($long->answered)[0], $commands_before) unless $counts && $damaged->{success};
	$cloudy += $_->{requests} foreach values %$counts;
	if ($cloudy > 50_000)
	{
		$cloud->reset;
		$cloud->call('POST', 'queues', { queue => $_, create => $true }) foreach ('events', 'callbacks');
		$forgotten += $cloudy;
		$cloudy = 0;
	}
	($cloudy_before, $damaged_before, $commands_before) = ($forgotten + $cloudy, split(/ /, $damaged->{content}));
	return ($cloudy_before, $damaged_before, ($long->answered)[0], $commands_before);
}

# --- connections: [ name, kind, base URL, sign-in, options ]
value(q{SELECT weir.create_secret('token', 'dapi-local'), weir.create_secret('entra_secret', 'weir-secret'),
	weir.create_secret('key', 'a2V5a2V5a2V5'), weir.create_secret('sas', '?sv=2021-08-06&sig=ab%2Fcd%3D')});

my $entra = { type => 'entra_client_secret', tenant_id => 'local', client_id => 'weir-client', client_secret => 'entra_secret', authority => $address };
my $factory = { subscription_id => 's1', resource_group => 'rg', factory => 'adf-dev', settle_seconds => 1 };
my $workspace = { workspace_id => id(1), settle_seconds => 1 };
my @connections = (
	[ 'api', 'http', "$address/http", undef ],
	[ 'dbx', 'databricks', "$address/dbx", { type => 'pat', token => 'token' }, { settle_seconds => 1 } ],
	[ 'adf', 'adf', "$address/adf", $entra, $factory ],
	[ 'fabric', 'fabric', "$address/fabric/v1", $entra, $workspace ],
	[ 'lake', 'storage', "$address/hns/blob", { %$entra, scope => 'https://storage.azure.com/.default' }, { dfs_url => "$address/hns/dfs" } ],
	[ 'vault', 'keyvault', "$address/vault", $entra ],
	[ 'queue', 'http', "$address/queue", undef ],
	[ 'g_http', 'http', "$garbled/http", { type => 'bearer', token => 'token' } ],
	[ 'g_list', 'http', $garbled ],
	[ 'g_dbx', 'databricks', $garbled, { type => 'pat', token => 'token' }, { settle_seconds => 1 } ],
	[ 'g_adf', 'adf', "$garbled/adf_pipeline", $entra, $factory ],
	[ 'g_fabric', 'fabric', "$garbled/fabric_item", $entra, $workspace ],
	[ 'g_lake', 'storage', "$garbled/storage/lake", { type => 'shared_key', account => 'account', key => 'key' } ],
	[ 'g_sas', 'storage', "$garbled/storage/lake", { type => 'sas', token => 'sas' } ],
	[ 'g_vault', 'keyvault', "$garbled/keyvault", { type => 'bearer', token => 'token' } ],
	[ 'g_secret', 'keyvault', "$garbled/secret", { type => 'bearer', token => 'token' } ],
	[ 'g_queue', 'http', "$garbled/webhook", undef ],
	[ 'g_redis', 'redis', "redis://127.0.0.1:$garbled_redis", { type => 'basic', username => 'default', password => 'token' } ],
	$redis ? [ 'redis', 'redis', "redis://127.0.0.1:$redis" ] : (),
	# sign-in that is answered so
	[ 't_entra', 'adf', "$address/adf", { %$entra, authority => "$garbled/token" }, $factory ],
	[ 't_vault', 'http', "$address/http", { type => 'bearer', token => 'keyvault:g_secret/a' } ],
	[ 't_identity', 'adf', "$address/adf", { type => 'managed_identity' }, $factory ],
	[ 't_oauth', 'http', "$address/http", { type => 'oauth_client_secret', token_url => "$garbled/token", client_id => 'c', client_secret => 'token' } ],
	[ 't_databricks', 'databricks', "$garbled/token", { type => 'databricks_oauth', client_id => 'c', client_secret => 'token' } ],
	$long->connections,
);
foreach my $connection (@connections)
{
	my ($name, $kind, $url, $auth, $options) = @$connection;
	value("SELECT weir.create_connection('$name', '$kind', '$url', " . (defined $auth ? literal($json->encode($auth)) : 'NULL') . '::jsonb, '
		  . literal($json->encode($options // {})) . '::jsonb)');
}
$cloud->call('POST', 'queues', { queue => $_, create => $true }) foreach ('events', 'callbacks');

# --- pipelines: the same task for many items
my %pipeline;

sub pipeline
{
	my ($name, $kind, $connection, $spec, %more) = @_;
	my $n = delete $more{items} // $items;
	my $task = { kind => $kind, connection => $connection, spec => $spec, timeout => '6 seconds',
		retry => { max_attempts => 2, initial_delay => '100 milliseconds', jitter => 0 }, %more };
	$task->{timeout} = '30 seconds' if $is_slow;
	# a query is another process that has to begin
	my $list = $is_slow && $name =~ /^g/ ? [ map { { n => $_ } } (1 .. $n) ] : { sql => "SELECT n FROM generate_series(1, $n) n" };
	value("SELECT weir.create_pipeline('$name', "
		  . literal($json->encode({ tasks => [ { name => 't', kind => 'for_each', spec => { items => $list, concurrency => 200, task => $task } } ] })) . ')');
	$pipeline{$name} = 1;
	return;
}

# One whose tasks ask until the mill says that it is the end
my %is_long;

sub long_pipeline
{
	my ($name, $kind, $connection, $spec, %more) = @_;
	my $n = delete $more{items};
	my $task = { kind => $kind, connection => $connection, spec => $spec, timeout => '15 minutes',
		retry => { max_attempts => 3, initial_delay => '100 milliseconds', jitter => 0 }, %more };

	value("SELECT weir.create_pipeline('$name', "
		  . literal($json->encode({ tasks => [ { name => 't', kind => 'for_each', spec => { items => [ 1 .. $n ], concurrency => 200, task => $task } } ] })) . ')');
	$is_long{$name} = 1;
	return;
}

my $few = $items < 20 ? $items : 20;
my %job = (id => '$.id', poll => { path => '/jobs/{id}', every => 0.1, status => '$.state', succeeded => ['done'], failed => ['failed'] });
my $pages = { path => '/pages/next', query => { count => 500, size => 10 }, pages => { items => '$.items', next => { json => '$.next' }, max_pages => 60, truncate => $true } };
foreach my $side ('', 'g_')
{
	my $http = $side ? 'g_http' : 'api';
	pipeline("${side}get", 'http', $http, { path => '/json/x', query => { n => '{{item.n}}' } });
	pipeline("${side}post", 'http', $http, { path => '/json/x', method => 'POST', body => { n => '{{item.n}}' }, idempotent => $true });
	pipeline("${side}pages", 'http', $side ? 'g_list' : $http, $pages, items => 2 * $items);
	pipeline("${side}job", 'http', $http, { path => '/jobs', method => 'POST', body => { seconds => 0.1 }, %job });
	my $dbx = $side ? 'g_dbx' : 'dbx';
	pipeline("${side}databricks_job", 'databricks_job', $dbx, { job_id => 102, job_parameters => { seconds => '0' } });
	pipeline("${side}notebook", 'databricks_notebook', $dbx, { notebook_path => '/a/echo', base_parameters => { a => '{{item.n}}' } });
	pipeline("${side}statement", 'databricks_sql', $dbx, { statement => 'SELECT 1 AS a', warehouse_id => 'wh1' });
	pipeline("${side}serving", 'databricks_serving', $dbx, { endpoint => 'adder', inputs => [ [ 1, 2 ] ], idempotent => $true });
	pipeline("${side}adf", 'adf_pipeline', "${side}adf", { pipeline => 'wait', parameters => { seconds => 0 } });
	pipeline("${side}fabric", 'fabric_item', "${side}fabric", { item => id(10), job_type => 'Pipeline', parameters => { seconds => 0 } });
	pipeline("${side}storage", 'storage', "${side}lake", { operation => 'list', container => 'lake' });
	pipeline("${side}put", 'storage', "${side}lake", { operation => 'put', container => 'lake', name => 'a/{{item.n}}', text => 'x' });
	# of the files of the line before
	pipeline("${side}copy", 'storage', "${side}lake", { operation => 'copy', container => 'lake', from => 'a/{{item.n}}', to => 'c/{{item.n}}', overwrite => $true });
	pipeline("${side}move", 'storage', "${side}lake", { operation => 'move', container => 'lake', files => [ map { "a/$_" } (1 .. 12) ], from => 'a/', to => 'd/{{item.n}}/' }, items => 4);
	pipeline("${side}vault", 'keyvault', "${side}vault", { operation => 'list' });
	pipeline("${side}event", 'webhook', "${side}queue", { queue => 'events', event => {}, every => 0.3 }, items => 5, timeout => '3 seconds');
}
pipeline('g_sas_list', 'storage', 'g_sas', { operation => 'list', container => 'lake' });
foreach my $connection ('g_redis', $redis ? 'redis' : ())
{
	pipeline("p_$connection", 'redis_publish', $connection, { sql => "SELECT n AS id, repeat(U&'\\00e4', n) AS text, NULL AS nothing FROM generate_series(1, 20) n",
			key => 'id', prefix => 'p{{item.n}}', ttl => '1 hour', keep_old => '1 second', verify => any('full', 'sample', 'count') }, items => $is_slow ? 4 : 20);
}
pipeline('t_oauth', 'http', 't_oauth', { path => '/json/x' }, items => $few);
pipeline('t_databricks', 'databricks_job', 't_databricks', { job_id => 102 }, items => $few);
pipeline('t_entra', 'adf_pipeline', 't_entra', { pipeline => 'wait', parameters => { seconds => 0 } }, items => $few);
pipeline('t_vault', 'http', 't_vault', { path => '/json/x' }, items => $few);
pipeline('t_identity', 'adf_pipeline', 't_identity', { pipeline => 'wait', parameters => { seconds => 0 } }, items => $few);
long_pipeline(@$_) foreach $long->pipelines;

# --- rounds

sub weather
{
	my @operations = ('http.*', 'databricks.*', 'adf.*', 'fabric.*', 'hns.*', 'keyvault.*', 'queue.*', 'entra.*', '*');
	my @kinds = (
		sub { (fault => 'status', status => any(400, 401, 403, 404, 409, 429, 500, 501, 502, 503, 504)) },
		sub { (fault => 'status', status => 429, retry_after => any(0, 1)) },
		sub { (fault => 'status', status => 503, retry_after_date => 1) },
		sub { (fault => 'html') }, sub { (fault => 'reset_before') }, sub { (fault => 'reset_after') },
		sub { (fault => 'half_body') }, sub { (fault => 'not_json') }, sub { (fault => 'delay', delay_ms => any(10, 300)) },
		sub { (fault => 'slow_drip', drip_ms => 1) }, sub { (fault => 'huge', mb => 2, chunked => any($true, JSON::PP::false), times => 2) },
	);

	$cloud->clear_faults;
	$cloud->add_fault(operation => any(@operations), after => int(rand(200)), times => 1 + int(rand(8)), any(@kinds)->()) foreach (1 .. 12);
	return;
}

# Definitions with something else in the place of a part, as users might send them:
# a backend refuses them or takes them; then what the pipeline would do is asked for.
my @parts = (undef, '', 'x', '{{ params.a }}', '{{ tasks.t.output.x }}', '{{', -1, 0, 1.5, 1e300, 99999999999, $true, [], {}, [ [] ], ['t'], { a => 1 }, '1 day', '$.a[*]',
	"\x{e4}\x{20ac}", 'a' x 3000, 'SELECT {{ params.a }}', [ 'a', 'a' ], [ {} ]);

sub mutated
{
	my ($tree) = @_;

	return any(@parts) if !ref $tree || JSON::PP::is_bool($tree) || rand() < 0.08;
	if (ref $tree eq 'ARRAY')
	{
		my @copy = @$tree;
		return [ @copy, @copy ] if rand() < 0.15;
		$copy[ rand @copy ] = mutated(any(@copy)) if @copy;
		return \@copy;
	}
	my %copy = %$tree;
	my $name = any(sort keys %copy) // 'x';
	if (rand() < 0.1) { delete $copy{$name} }
	elsif (rand() < 0.1) { $copy{ any('retry', 'pool', 'params', 'retention', 'on_failure', 'timeout', 'enabled', 'depends_on', 'run_if', 'spec', 'kind', 'nonsense') } = any(@parts) }
	else { $copy{$name} = mutated($copy{$name}) }
	return \%copy;
}

sub definitions
{
	my ($n) = @_;
	my @known = map { $json->decode($_) } split /\n/, value('SELECT weir.describe_pipeline(name)::text FROM weir.pipeline');
	my $sql = "\\set VERBOSITY verbose\n";

	push @known, map { { tasks => [ { name => 't', %$_ }, { name => 'u', kind => 'noop', depends_on => ['t'] } ], params => { a => { default => 1 } } } }
	  ({ kind => 'if', spec => { left => '{{ params.a }}', op => '>', right => 1 } }, { kind => 'switch', spec => { on => 'a', cases => [ 'a', 'b' ] } },
		{ kind => 'wait', spec => { for => '1 minute' } }, { kind => 'sql', spec => { sql => 'SELECT {{ params.a }}', settings => { work_mem => '1MB' } } },
		{ kind => 'redis_publish', connection => 'api', spec => { sql => 'SELECT 1', key => 'a', prefix => 'p', ttl => 1 } });
	foreach (1 .. $n)
	{
		my $definition = any(@known);
		$definition = mutated($definition) foreach (0 .. rand 1.6);
		my $text = literal($json->encode(ref $definition ? $definition : [$definition]));
		$sql .= "BEGIN;\nSELECT weir.create_pipeline('fuzzed', $text);\nSELECT count(*) FROM weir.plan('fuzzed');\nROLLBACK;\n";
		my ($name, $kind, $url, $auth, $options) = @{ any(@connections) };
		my @changed = map { literal($json->encode($_ // {})) } rand() < 0.5 ? (mutated($auth // {}), $options) : ($auth, mutated($options // {}));
		$sql .= "BEGIN;\nSELECT weir.create_connection('fuzzed', '$kind', '$url', $changed[0], $changed[1]);\nROLLBACK;\n";
	}
	my ($status, $out, $err) = $node->psql('postgres', $sql, on_error_stop => 0);
	my $refused = () = $err =~ /ERROR: /g;

	is($err =~ /(server closed|terminating|PANIC|could not connect|internal error|XX000)/ ? $1 : '', '', "$n damaged definitions and connections: $refused errors");
	return;
}

sub conductor_sql { return q{(SELECT string_agg(pid || ' ' || backend_start, ',') FROM pg_stat_activity WHERE backend_type = 'weir conductor')} }
sub conductor { return value('SELECT ' . conductor_sql()) }

# Bytes of its memory contexts, which it writes to the log when asked
sub memory
{
	my $from = -s $node->logfile;
	my ($pid) = conductor() =~ /^(\d+)/;

	value("SELECT pg_log_backend_memory_contexts($pid)");
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	while (time < $limit)
	{
		my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile, $from);
		return $1 if $log =~ /Grand total: (\d+) bytes/;
		value('SELECT pg_notify(\'weir_nobody\', NULL)');		# a commit, so that it looks
		select(undef, undef, undef, 0.05);
	}
	die 'the conductor does not tell its memory';
}

wait_until($node, 'the conductor is there', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'weir conductor'});
my $process = conductor();
my @all = (sort(keys %pipeline), sort(keys %is_long));
my $names = join(', ', map { literal($_) } @all);
my ($looks, $cloudy, $damaged, $milled, $commands, $memory, $shown) = (0, 0, 0, 0, 0, undef, 0);
my $progress = time;
my $began = time;
my @turn;

# Those whose run has ended begin again.  Where statements take long, of those whose tasks end soon only a few
# are under way, and after the first round they make one request of thirty.
sub begin_again
{
	my @running = split /\n/, value("SELECT DISTINCT pipeline_name FROM weir.run WHERE $in_progress");
	my %is_running = map { $_ => 1 } @running;
	my @begin = grep { !$is_running{$_} } keys %is_long;

	if (!$is_slow)
	{
		push @begin, grep { !$is_running{$_} } keys %pipeline;
	}
	else
	{
		my $room = ($milled + $cloudy + $damaged < $wanted ? 6 : 20) - grep { $pipeline{$_} } @running;
		@turn = shuffle(sort keys %pipeline) if !@turn && 29 * ($cloudy + $damaged) < $milled;
		push @begin, splice(@turn, 0, $room) if $room > 0;
	}
	value('SELECT count(weir.trigger(name)) FROM unnest(ARRAY[' . join(', ', map { literal($_) } sort @begin) . ']) name') if @begin;
	return;
}

sub is_stuck
{
	my $count = $cloudy + $damaged + $milled + $commands;

	($cloudy, $damaged, $milled, $commands) = answered();
	$progress = time if $cloudy + $damaged + $milled + $commands > $count;
	return time > $progress + $patience || conductor() ne $process;
}

@turn = shuffle(sort keys %pipeline);
while ($cloudy + $damaged + $milled < $wanted || @turn)
{
	weather() if $looks % 20 == 0;
	definitions($is_slow ? 20 : 100) if $looks % ($is_slow ? 150 : 60) == 0;
	# What was learnt of the services is forgotten now and then: open circuits, pauses of a day.
	value('SELECT count(weir.alter_connection(name, description => \'again\')) FROM weir.connection') if $looks % 40 == 39;
	begin_again();
	# some commits later: it may have started, be waiting, or have ended
	value("SELECT weir.cancel(run_id, 'enough') FROM weir.run WHERE $in_progress ORDER BY random() LIMIT 1") if $looks % 5 == 4;
	select(undef, undef, undef, $is_slow ? 2 : 0.5);
	$looks++;
	last if is_stuck();
	# warm after a quarter
	$memory //= memory() if $cloudy + $damaged + $milled >= $wanted / 4;
	if ($cloudy + $damaged + $milled >= $shown + $wanted / 20)
	{
		$shown = $cloudy + $damaged + $milled;
		is(conductor(), $process, "$cloudy requests to the cloud, $damaged to the garbler, $milled to the mill and $commands to Redis: the conductor is the same process");
	}
}
my $seconds = time - $began;
$cloud->clear_faults;
$long->end or die 'the mill does not end';
do
{
	select(undef, undef, undef, $is_slow ? 2 : 0.5);
} until (value("SELECT EXISTS (SELECT FROM weir.run WHERE $in_progress)") eq 'f' || is_stuck());
($cloudy, $damaged, $milled, $commands) = answered();
is(value("SELECT count(*) FROM weir.run WHERE $in_progress"), 0, 'all runs end')
  or diag(value("SELECT string_agg(concat_ws(' ', pipeline_name, w.task, waiting_for, detail), E'\\n') FROM (SELECT * FROM weir.run r WHERE $in_progress LIMIT 5) r, weir.why(run_id) w")
	  || 'nothing is waited for');
is(conductor(), $process, 'the conductor is the same process');

# --- what there is to see afterwards
cmp_ok($cloudy + $damaged + $milled, '>=', $wanted, "requests were answered: $cloudy by the cloud, $damaged by the garbler, $milled by the mill; and $commands commands by its Redis");
note("in $seconds seconds until nothing new was begun; by the mill (all, badly): ", $json->encode(($long->answered)[1]));
is(value("SELECT count(DISTINCT pipeline_name) FROM weir.run WHERE pipeline_name IN ($names)"), scalar(@all), 'every pipeline has run');
is(join(' ', grep { !($long->answered)[1]{$_}[0] } qw(pages jobs lro databricks statements adf fabric storage keyvault queue token)), '', 'the mill was asked for everything');
is(value(q{SELECT count(*) FROM weir.attempt WHERE status NOT IN ('succeeded', 'failed', 'timed_out', 'cancelled')}), 0, 'no attempt is left over');
cmp_ok(value(q{SELECT count(*) FROM weir.attempt WHERE status = 'succeeded'}), '>', ($cloudy + $damaged) / 100, 'many attempts succeeded');
cmp_ok(value(q{SELECT count(DISTINCT error_code) FROM weir.attempt WHERE status = 'failed'}), '>', 15, 'others failed for many reasons');
my $end = memory();
cmp_ok($end, '<', 2 * ($memory // $end) + 8 * 1024 * 1024, "its memory has not grown: $end bytes after " . ($memory // 0));
note(value(q{SELECT string_agg(concat_ws(' ', status, error_code, n), E'\n' ORDER BY n DESC)
	FROM (SELECT status, error_code, count(*) AS n FROM weir.attempt GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 60) s}));
my @lines = grep { /weir (conductor|launcher) .*(ERROR|FATAL|PANIC|WARNING)|was terminated|runtime error|AddressSanitizer/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile);
is(scalar(@lines), 0, 'the log has no errors of the conductor') or diag(join("\n", @lines[0 .. ($#lines > 20 ? 20 : $#lines)]));
$session->quit;
$node->stop;
$cloud->stop;

done_testing();
