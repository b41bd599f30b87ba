# The ways to sign in that 090 leaves out (OAuth, storage keys, shared access
# signatures, managed identities, Redis, values that are sent into a key vault),
# looked for in tables, dumps, files and logs as there; and while requests with
# secrets are under way, all of them in pg_stat_activity, in what the machine
# shows of processes (of which core files have their names) and in the memory of
# every process of the server that has no need of them.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use JSON::PP;
use MIME::Base64 qw(encode_base64);
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirCanaries;
use WeirFarEnd;
use WeirSignIn;
use WeirHelper;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $true = JSON::PP::true;
my $dump = PostgreSQL::Test::Utils::tempdir();
my $agent = PostgreSQL::Test::Utils::tempdir();
my $node = weir_node('memory', start => 0, conf => qq{
shared_buffers = 16MB
log_min_messages = debug2
log_statement = all
log_min_duration_statement = 0
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
weir.sql_worker_idle_timeout = 600s
});
my $cloud = weir_cloud(undef);
my $address = $cloud->address;
my $far = WeirFarEnd->new;
my $redis_port = PostgreSQL::Test::Cluster::get_free_port();
my $redis_program = (grep { -x } map { "$_/redis-server" } split(/:/, $ENV{PATH}))[0];
my $redis;

sub value { return $node->safe_psql('postgres', $_[0]) }

END { my $status = $?; kill('KILL', $redis), waitpid($redis, 0) if $redis; $? = $status; }

# --- the values
my $control = canary('control');
my %secret = (
	pat => canary('pat', 'dapi-', '/+=~'),
	bearer => canary('bearer', '', '+/"\\%'),
	password => canary('password', 'p@', ':/ y'),
	entra => canary('entra', 'x~', '/+&=%" y'),
	oauth => canary('oauth', 'dose', '&=+ %'),
	oauth_basic => canary('oauth_basic', 'x', '&=+%'),
	in_vault => canary('in_vault', 'dapi-', '/+=~'),
	uploaded => canary('uploaded', '{"', '"}\\'),
	sas => 'sv=2021-08-06&se=2099-01-01&sig=' . canary('sas') . '%2F%2B%3D&sp=rl',
	proxy_wrong => 'weir:' . canary('proxy_wrong', 'q', '@'),
	proxy => 'weir:' . canary('proxy', 'p%40', ':/ @+y'),
	redis => canary('redis', 'r', 'x'));
my $key_bytes = canary('storage_key');
$secret{storage_key} = encode_base64($key_bytes, '');
my $arc_key = canary('arc_key');
my $header = canary('identity_header');
my $certificate = make_certificate('app', password => 'locked-' . canary('key_password'));
my $pem = file_text("$certificate.key");
$core{private_key} = substr((split /\n/, $pem)[12], 0, 48);
$core{assertion} = substr(base64url('{"alg":"PS256","typ":"JWT","x5t#S256":"'), 0, 48);
# The beginning of every token that the local cloud issues.
$core{issued} = 'eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.';

# --- services
$cloud->config(
	pats => [ $secret{pat}, $secret{in_vault} ],
	clients => { 'app' => $secret{entra}, 'dbx-app' => $secret{oauth}, 'basic-app' => $secret{oauth_basic} },
	certificates => { 'cert-app' => [ certificate_key($certificate) ] },
	arc_directory => $agent, identity_header => $header);
if (defined $redis_program)
{
	$redis = fork_helper("$agent/redis.log", sub {
		exec($redis_program, '--bind', '127.0.0.1', '--port', $redis_port, '--save', '', '--appendonly', 'no', '--dir', $agent, '--requirepass', $secret{redis});
	});
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	until (-s "$agent/redis.log" && file_text("$agent/redis.log") =~ /ready to accept connections/i)
	{
		die 'Redis did not start' if waitpid($redis, POSIX::WNOHANG()) != 0 || time > $limit;
		select(undef, undef, undef, 0.02);
	}
}

# The header of App Service is in the environment of the server, as it is there, and so in the memory of its processes.
$ENV{IDENTITY_ENDPOINT} = "$address/identity/msi/token";
$ENV{IDENTITY_HEADER} = $header;
$node->append_conf('postgresql.conf', "weir.identity_key_directory = '$agent/'\n");
$node->start;
value('CREATE EXTENSION weir');
value('CREATE ROLE other LOGIN IN ROLE weir_admin');

# --- given to weir
create_secret($node, $_, $secret{$_}) foreach sort keys %secret;
create_secret($node, 'certificate', $pem . file_text("$certificate.crt"));
create_secret($node, 'locked_key', file_text("$certificate.locked"));
create_secret($node, 'certificate_alone', file_text("$certificate.crt"));
create_secret($node, 'key_password', 'locked-' . $core{key_password});

my $factory = { subscription_id => 's1', resource_group => 'rg', factory => 'adf-dev', settle_seconds => 0 };
my $wait = { pipeline => 'wait', parameters => { seconds => 0 } };
my $job = { job_id => 102, job_parameters => { seconds => '0' } };
my $list = { operation => 'list', container => 'lake' };
my @app = (tenant_id => 'local', authority => $address);
my $entra = { type => 'entra_client_secret', client_id => 'app', client_secret => 'entra', @app };
my %oauth = (type => 'oauth_client_secret', token_url => "$address/local/oauth2/v2.0/token", scope => 'https://vault.azure.net/.default');

# name => [ kind of connection, base URL, sign-in, options, kind of task, its spec ]
my %way = (
	pat => [ 'databricks', "$address/dbx", { type => 'pat', token => 'pat' }, {}, 'databricks_job', $job ],
	databricks_oauth => [ 'databricks', "$address/dbx", { type => 'databricks_oauth', client_id => 'dbx-app', client_secret => 'oauth' }, {}, 'databricks_job', $job ],
	oauth_post => [ 'http', "$address/http", { %oauth, client_id => 'app', client_secret => 'entra', client_auth => 'post' }, {}, 'http', { path => '/json/echo' } ],
	oauth_basic => [ 'http', "$address/http", { %oauth, client_id => 'basic-app', client_secret => 'oauth_basic', client_auth => 'basic' }, {}, 'http', { path => '/json/echo' } ],
	entra => [ 'adf', "$address/adf", $entra, $factory, 'adf_pipeline', $wait ],
	certificate => [ 'adf', "$address/adf", { type => 'entra_certificate', client_id => 'cert-app', certificate => 'certificate', @app }, $factory, 'adf_pipeline', $wait ],
	locked => [ 'adf', "$address/adf", { type => 'entra_certificate', client_id => 'cert-app', certificate => 'certificate_alone', private_key => 'locked_key',
			password => 'key_password', @app }, $factory, 'adf_pipeline', $wait ],
	app_service => [ 'adf', "$address/adf", { type => 'managed_identity', source => 'app_service' }, $factory, 'adf_pipeline', $wait ],
	bearer => [ 'http', "$address/http", { type => 'bearer', token => 'bearer' }, {}, 'http', { path => '/json/echo' } ],
	basic => [ 'http', "$address/http", { type => 'basic', username => 'weir', password => 'password' }, {}, 'http', { path => '/json/echo' } ],
	vault => [ 'keyvault', "$address/vault", $entra, {}, 'keyvault', { operation => 'set', name => 'from-weir', from_secret => 'uploaded' } ],
	in_vault => [ 'http', "$address/http", { type => 'bearer', token => 'keyvault:vault/token' }, {}, 'http', { path => '/json/echo' } ],
	# A service that refuses them, and says so with the address it was asked at.
	shared_key => [ 'storage', "$address/http/json/account", { type => 'shared_key', account => 'account', key => 'storage_key' }, {}, 'storage', $list ],
	sas => [ 'storage', "$address/http/json/account", { type => 'sas', token => 'sas' }, {}, 'storage', $list ],
);
# a proxy that wants to be signed in at; for signing in, and in a key vault's place, too
$far->proxy("user=$secret{proxy}");
my %through = (proxy => $far->url('proxy'), proxy_secret => 'proxy', ca_certificate => $far->ca);
$way{proxied} = [ 'http', $far->url('tls'), { type => 'oauth_client_secret', token_url => $far->url('tls') . '/issue', client_id => 'app', client_secret => 'oauth' }, \%through, 'http', { path => '/json' } ];
$way{refused_by_proxy} = [ 'http', $far->url('tls'), {}, { %through, proxy_secret => 'proxy_wrong' }, 'http', { path => '/json' } ];
my %fails = (refused_by_proxy => 1, shared_key => 1, sas => 1);
create_connection($node, $_, @{ $way{$_} }[ 0 .. 3 ]) foreach 'vault', grep { $_ ne 'vault' } sort keys %way;
{
	# a secret in the vault, put there by weir itself
	create_secret($node, 'for_vault', $secret{in_vault});
	my ($run, $status) = run_task($node, 'vault', 'keyvault', { operation => 'set', name => 'token', from_secret => 'for_vault' });
	is($status, 'succeeded', 'a key vault that holds a secret') or diag(task_error($node, $run));
}
my ($run, $status);
# times => 1 each: what one connection is refused with tells nothing of the other
my $refusal = { fault => 'status', status => 403, times => 1, path => '/http/json/account/lake' };
foreach my $name (sort keys %way)
{
	$cloud->add_fault(%$refusal, body => '<?xml version="1.0"?><Error><Code>AuthenticationFailed</Code><Message>'
		  . ($name eq 'sas' ? 'GET /lake?comp=list&amp;' . ($secret{sas} =~ s/&/&amp;/gr) : 'no') . '</Message></Error>') if $fails{$name} && $name ne 'refused_by_proxy';
	($run, $status) = run_task($node, $name, @{ $way{$name} }[ 4, 5 ]);
	is($status, $fails{$name} ? 'failed' : 'succeeded', "$name: signs in") or diag(task_error($node, $run));
}
like(value('SELECT string_agg(output::text, E\'\n\') FROM weir.task_run'), qr/"authorization": "Basic \*{20,}"/, 'services said back what they were asked, masked');
is(scalar(grep { ($_->{headers}{'Proxy-Authorization'} // '') =~ /^Basic / } @{ $far->ledger->{connects} }) >= 2, 1, 'a proxy was signed in at');
is(value(q{SELECT proxy FROM weir.test_connection('proxied')}) . value(q{SELECT proxy FROM weir.test_connection('refused_by_proxy')}), 'okfailed', '... by a session that tests it, too');
is(scalar(@{ $cloud->ledger(path => '/http/json/account/lake') }), 2, 'among them one that was asked with a key and a signature');
$cloud->clear_faults;

# --- Azure Arc has its key in a file
$node->stop;
delete $ENV{IDENTITY_HEADER};
$ENV{IDENTITY_ENDPOINT} = "$address/identity/metadata/identity/oauth2/token";
$ENV{IMDS_ENDPOINT} = $address;
write_file("$agent/known.key", $arc_key);
$cloud->config(arc_realm => "$agent/known.key");
$node->start;
create_connection($node, 'arc', 'adf', "$address/adf", { type => 'managed_identity', source => 'arc' }, $factory);
($run, $status) = run_task($node, 'arc', 'adf_pipeline', $wait);
is($status, 'failed', 'an agent that does not accept the key');
$cloud->config(arc_realm => undef);
value("SELECT weir.alter_connection('arc', description => 'fresh')");
($run, $status) = run_task($node, 'arc', 'adf_pipeline', $wait);
is($status, 'succeeded', 'an agent that does') or diag(task_error($node, $run));

# --- Redis has its password in a SQL worker
SKIP:
{
	skip 'there is no redis-server', 2 unless defined $redis_program;
	my $publish = { sql => 'SELECT 1 AS id, 2 AS a', key => 'id', prefix => 'p', ttl => '1 hour' };
	create_secret($node, 'wrong_redis', canary('wrong_redis', 'w', 'x'));
	create_connection($node, 'redis', 'redis', "redis://127.0.0.1:$redis_port", { type => 'basic', username => 'default', password => 'redis' });
	create_connection($node, 'wrong_redis', 'redis', "redis://127.0.0.1:$redis_port", { type => 'basic', username => 'default', password => 'wrong_redis' });
	($run, $status) = run_task($node, 'redis', 'redis_publish', $publish);
	is($status, 'succeeded', 'Redis with a password') or diag(task_error($node, $run));
	($run, $status) = run_task($node, 'wrong_redis', 'redis_publish', $publish);
	is($status, 'failed', 'Redis with a wrong one');
}

# --- a session that goes on keeps its place in shared memory, where its statements stand
my $giver = $node->background_psql('postgres');
$giver->query_safe("SET application_name = 'giver'");
$giver->query_safe('SELECT weir.create_secret(' . literal('given') . ', ' . literal('given-' . 'x' x 100 . canary('given')) . ')');

# --- while requests are under way: what can be seen of the processes
my @named = grep { $_ ne 'control' && $_ ne 'identity_header' } sort keys %core;

# A worker of somebody else, and a session; the one that holds the control value is found.
value(q{SET SESSION AUTHORIZATION other; SELECT weir.create_pipeline('others', '{"tasks": [{"name": "a", "kind": "sql", "spec": {"sql": "SELECT 1"}}]}')});
is(wait_for_run($node, weir_trigger($node, 'others')), 'succeeded', 'a SQL task of somebody else');
my $session = $node->background_psql('postgres');
$session->query_safe("SET application_name = 'bystander'");
$session->query_safe('SET weir_test.control = ' . literal($control));

my @held = ('bearer', 'basic', 'oauth_post', 'oauth_basic', 'in_vault', 'shared_key', 'sas');
$cloud->reset;
$cloud->add_fault(operation => 'http.json', fault => 'hold', times => scalar @held);
my @runs = map { run_task($node, $_, @{ $way{$_} }[ 4, 5 ], start => 1) } @held;
is(scalar(@{ $cloud->wait(operation => 'http.json', count => scalar @held, timeout_ms => 1000 * $PostgreSQL::Test::Utils::timeout_default) }),
	scalar @held, 'all requests are sent, and none is answered');

write_file("$dump/activity", value('SELECT * FROM pg_stat_activity') . value('SELECT * FROM weir.status') . value('SELECT * FROM weir.attempts')
	  . join('', map { value("SELECT * FROM weir.why($_)") } @runs) . value("COPY (SELECT * FROM pg_stat_ssl, pg_settings) TO STDOUT"));
my ($postmaster) = file_text($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
my %process = ($postmaster => 'postmaster');
foreach my $file (glob '/proc/[0-9]*/stat')
{
	open(my $stream, '<', $file) or next;
	my ($pid, $parent) = (<$stream> // '') =~ /^(\d+) \(.*\) \S (\d+)/ or next;
	$process{$pid} = 'process' if $parent == $postmaster;
}
foreach my $line (split /\n/, value(q{SELECT pid || ' ' || backend_type || CASE WHEN application_name IN ('bystander', 'giver') THEN ' ' || application_name ELSE '' END FROM pg_stat_activity WHERE pid <> pg_backend_pid()}))
{
	my ($pid, $type) = split / /, $line, 2;
	$process{$pid} = $type if exists $process{$pid};
}
cmp_ok(scalar(grep { /weir/ } values %process), '>=', 3, 'a launcher, a conductor and workers are there');

# A core file is named after what these say.
my $shown = '';
foreach my $pid (sort keys %process)
{
	foreach my $file ('cmdline', 'comm')
	{
		open(my $stream, '<:raw', "/proc/$pid/$file") or next;
		local $/;
		$shown .= (<$stream> // '') . "\n";
	}
}
like($shown, qr/weir conductor/, 'titles of processes');
write_file("$dump/titles", $shown);
canaries_absent('pg_stat_activity, views and titles of processes while requests are under way', [ @named, 'identity_header' ], $dump);

SKIP:
{
	skip 'the memory of processes cannot be read here', 3 unless memory_is_readable($postmaster);
	my ($bystander) = grep { $process{$_} =~ /bystander/ } keys %process;
	my ($hits) = canaries_in_memory($bystander, ['control']);
	ok($hits->{control}, 'a value that a session holds is found in its memory');
	value('CREATE TABLE public.control AS SELECT ' . literal($control) . ' AS t');
	($hits) = canaries_in_memory($postmaster, ['control'], 1);
	ok($hits->{control}, 'and what a table holds in shared memory');
	foreach my $pid (sort keys %process)
	{
		# The conductor sends the secrets, and the worker of redis_publish its password; one was given here.
		next if $process{$pid} =~ /conductor|giver/;
		my @absent = $process{$pid} =~ /SQL worker/ ? grep { !/redis/ } @named : @named;
		canaries_absent_in_memory($pid, $process{$pid}, \@absent) if -d "/proc/$pid";
	}
	canaries_absent_in_memory($postmaster, 'all, which is shared', \@named, 1);
}
value("SELECT weir.cancel($runs[$_])") foreach grep { $fails{ $held[$_] } } 0 .. $#held;
$cloud->clear_faults;
is(wait_for_run($node, $runs[$_]), $fails{ $held[$_] } ? 'cancelled' : 'succeeded', "$held[$_]: comes to its end") foreach 0 .. $#held;

# --- nothing is under way: the conductor keeps what it was issued, and not what it was issued for
SKIP:
{
	skip 'the memory of processes cannot be read here', 3 unless memory_is_readable($postmaster);
	my ($conductor) = grep { $process{$_} =~ /conductor/ } keys %process;
	my ($hits) = canaries_in_memory($conductor, ['issued']);
	ok($hits->{issued}, 'the conductor keeps tokens');
	canaries_absent_in_memory($conductor, 'the conductor, when nothing is under way', [ grep { !/^(issued|in_vault)$/ } @named ]);
}
$session->quit;
$giver->quit;

# --- and where things are kept
my $relations = value(q{SELECT string_agg(format('%I.%I', n.nspname, c.relname), ' ' ORDER BY 1)
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'weir' AND c.relkind IN ('r', 'v', 'm', 'p')});
write_file("$dump/relation.$_", value("SELECT * FROM $_")) foreach split / /, $relations;
$node->command_ok([ 'pg_dumpall', '-f', "$dump/all", '-d', $node->connstr('postgres') ], 'pg_dumpall');
my @everywhere = (@named, 'identity_header');
my $said = canaries_absent_in_foresight($node, \@everywhere, "$dump/foresight");
like($said, qr/^plan\|.*\|$_\|/m, "$_: is planned") foreach sort keys %way;
canaries_absent('tables, views and dumps', \@everywhere, $dump);
value('CHECKPOINT');
$node->stop;
is(scalar(grep { /control in/ } canaries_found(['control'], $node->data_dir)) > 0, 1, 'the search finds what is there');
canaries_absent('data directory and WAL', \@everywhere, $node->data_dir);
cmp_ok(-s $node->logfile, '>', 100_000, 'the server logged a lot');
canaries_absent('the server log', \@everywhere, $node->logfile);

done_testing();
