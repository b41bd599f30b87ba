# Queues of a real storage server (Azurite), where what tasks of kind webhook
# wait for is put by Microsoft's own SDK: Shared Key and SAS, messages for
# somebody else, twice, poisoned, lost answers and kill -9, and refusals that
# say what is wrong.  Entra tokens at the local cloud's queues, which answer the
# SDK as those do.
#
# npm: azurite@3.35.0
# npm: @azure/storage-queue@12.30.0

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirAzurite;
use WeirPackages;
use WeirSignIn;
use WeirTest;

my $reason = missing_npm('azurite', '@azure/storage-queue');
plan skip_all => $reason if defined $reason;

my $json = JSON::PP->new->canonical;
my $azurite = WeirAzurite->new('blob', 'queue');
my $account = $WeirAzurite::account;
my $queues = $azurite->address('queue') . "/$account";
sub limit { return IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default) }

# --- the SDK: first its session, which the local cloud goes through in 351
my @program = ('node', node_program('test/cloud/sdk/check_queues.mjs', map { "test/cloud/sdk/$_.mjs" } 'localcloud', 'queues'));
my $output = '';
ok(IPC::Run::run([ @program, $queues, $account, $azurite->key ], '<', \undef, '>', \$output, '2>&1', limit()), 'the session of the SDK');
like($output, qr/^(?!0 )\d+ passed, 0 failed$/m, 'finds what it finds in the local cloud');

# Then it is the hand of those who send; the results of the steps.
my $hand = node_program('test/cloud/sdk/queue_hand.mjs');
sub by_hand
{
	my (@steps) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'node', $hand, $queues, $account, $azurite->key, $json->encode(\@steps) ], '<', \undef, '>', \$out, '2>', \$err, limit()) or die "queue_hand: $err";
	my $results = $json->decode($out);
	return wantarray ? @$results : $results->[0];
}
# Until the last step's result is good
sub by_hand_until
{
	my ($good, @steps) = @_;
	my $end = time + $PostgreSQL::Test::Utils::timeout_default;
	my $result;
	do { ($result) = reverse by_hand(@steps) } until $good->($result) || time > $end;
	return $result;
}
sub count_until { my ($n, $queue) = @_; return by_hand_until(sub { $_[0] == $n }, [ count => $queue ]) }

my (undef, undef, undef, undef, $sas, $expired, $queue_sas) = by_hand(map({ [ create => $_ ] } 'callbacks', 'callbacks-poison', 'bare', 'arrivals'),
	[ sas => 60 ], [ sas => -5 ], [ queue_sas => 'callbacks' ]);

my $node = weir_node('queues', start => 0);
my $cloud = weir_cloud(undef);
my $address = $cloud->address;
$node->append_conf('postgresql.conf', "weir.identity_endpoint = '$address/identity'\n"
	. "weir.allowed_hosts = '127.0.0.1, localhost, account.blob.core.windows.net, open.blob.core.windows.net, open.queue.core.windows.net'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION weir');
$cloud->config(storage => $azurite->address('queue'));

sub value { return $node->safe_psql('postgres', $_[0]) }
create_secret($node, account_key => $azurite->key);
create_secret($node, wrong_key => 'd3Jvbmc=');
create_secret($node, sas => $sas);
create_secret($node, expired => $expired);
create_secret($node, queue_sas => "?$queue_sas");
my %key = (type => 'shared_key', key => 'account_key');
my %sas = (type => 'sas', token => 'sas');
create_connection($node, 'svc', 'http', "$address/http", { type => 'none' });
create_connection($node, 'key', 'storage', $queues, \%key);
create_connection($node, 'sas', 'storage', $queues, \%sas);
create_connection($node, 'queue_sas', 'storage', $queues, { %sas, token => 'queue_sas' });
create_connection($node, 'files', 'storage', $azurite->address . "/$account", \%key, { queue_url => $queues });
create_connection($node, 'far', 'storage', "$address/$account", \%key);
create_connection($node, 'far_sas', 'storage', "$address/$account", \%sas);

# A run of one task that waits at a queue
my $n = 0;
sub start
{
	my ($connection, $spec, %more) = @_;
	my $name = 'p' . ++$n;
	my %task = (name => 'hook', kind => 'webhook', connection => $connection, spec => { every => 0.2, hide_seconds => 1, %$spec }, %more);
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => [ \%task ] })) . ')');
	return weir_trigger($node, $name);
}
sub asks
{
	my (%more) = @_;
	return { queue => 'callbacks', request => { connection => 'svc', method => 'POST', path => '/jobs', id => '$.id', body => { seconds => 0, reply_to => '{token}' } },
		status => '$.state', succeeded => ['done'], error => { message => '$.error' }, outputs => { rows => '$.rows' }, %more };
}
# Its request has been answered: what the callback must say
sub token_of
{
	my ($run) = @_;
	wait_until($node, 'the request was answered', "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run");
	return value("SELECT token FROM weir.attempt WHERE run_id = $run");
}
sub callback { my ($token, %more) = @_; return $json->encode({ token => $token, state => 'done', rows => 7, %more }) }
sub rows_of { return value("SELECT output->'outputs'->>'rows' FROM weir.task_run WHERE run_id = $_[0]") }
sub refused
{
	my ($what, $run, $expected, $code) = @_;
	is(wait_for_run($node, $run), 'failed', $what);
	my $error = task_error($node, $run);
	like($error, $expected, "$what: is told");
	is(value("SELECT string_agg(DISTINCT error_code, ',') FROM weir.attempt WHERE run_id = $run"), $code, "$what: with the code");
	return;
}

# --- every way to sign in; JSON as it is and in base64
foreach my $connection ('key', 'sas', 'queue_sas', 'files', 'far', 'far_sas')
{
	my $run = start($connection, asks());
	by_hand([ ($n % 2 ? 'send' : 'send_base64') => 'callbacks', callback(token_of($run)) ]);
	is(wait_for_run($node, $run), 'succeeded', "$connection: the callback comes") or diag(task_error($node, $run));
	is(rows_of($run), 7, "$connection: with its outputs");
}
is(by_hand([ count => 'callbacks' ]), 0, 'all messages were deleted');
is(value("SELECT is_ok FROM weir.test_connection('$_')"), 't', "test_connection: $_") foreach 'key', 'sas', 'files';
my $run = start('files', asks());
by_hand([ send => 'callbacks', callback(token_of($run), state => 'lost', error => 'no disk') ]);
refused('a callback that says failed', $run, qr/no disk/, 'failed');

# --- for somebody else, and twice
# However often it is received while somebody looks by hand, which takes its time.
my ($first, $second) = map { start($_, asks(poison_after => 1000000)) } 'key', 'sas';
my ($first_token, $second_token) = map { token_of($_) } $first, $second;
by_hand(map { [ send => 'callbacks', callback($second_token) ] } 1, 2);
is(wait_for_run($node, $second), 'succeeded', 'of two who wait, the one it is for gets the message');
is(count_until(0, 'callbacks'), 0, 'the second of its kind is thrown away');
by_hand([ send => 'callbacks', callback('weir-other-1-1') ]);
my $left = by_hand_until(sub { @{ $_[0] } == 1 && $_[0][0]{dequeued} > 1 }, [ peek => 'callbacks' ]);
like($left->[0]{text}, qr/weir-other-1-1/, 'what is for another database comes into sight again');
is(value("SELECT status FROM weir.run WHERE run_id = $first"), 'running', 'and is nothing to who waits here');
by_hand([ send => 'callbacks', callback($first_token) ]);
is(wait_for_run($node, $first), 'succeeded', 'who gets his own beside it');
is(by_hand([ count => 'callbacks' ]), 1, 'it stays');

# --- poison
my $poison = 'not JSON & <b>';
my $listener = start('sas', asks(poison_after => 2));
token_of($listener);
by_hand([ send => 'callbacks', $poison ]);
is(count_until(2, 'callbacks-poison'), 2, 'what cannot be read, and what nobody came for, goes to the poison queue');
ok((grep { $_->{text} eq $poison } @{ by_hand([ peek => 'callbacks-poison' ]) }), 'as it was');
is(count_until(0, 'callbacks'), 0, 'and out of the way');
value("SELECT weir.cancel($listener)");
is(wait_for_run($node, $listener), 'cancelled', 'who listened is told to stop');
$listener = start('key', { queue => 'bare', event => {}, poison_after => 2 });
by_hand([ send => 'bare', $poison ]);
$left = by_hand_until(sub { @{ $_[0] } == 1 && $_[0][0]{dequeued} > 3 }, [ peek => 'bare' ]);
is($left->[0]{text}, $poison, 'where there is no poison queue it stays');
value("SELECT weir.cancel($listener)");
wait_for_run($node, $listener);

# --- a file that came
my $event = { id => 'e1', eventType => 'Microsoft.Storage.BlobCreated', subject => '/blobServices/default/containers/lake/blobs/in/a.csv',
	data => { api => 'PutBlob', url => "https://$account/lake/in/a.csv", eTag => '0x8D', contentLength => 12 } };
$run = start('files', { queue => 'arrivals', event => { container => 'lake', suffix => '.csv' } });
by_hand([ send_base64 => 'arrivals', $json->encode($event) ]);
is(wait_for_run($node, $run), 'succeeded', 'an event, as Event Grid sends it');
is(value("SELECT output->>'path' FROM weir.task_run WHERE run_id = $run"), 'in/a.csv', 'and its file');

# --- lost answers, and kill -9 between the commit and the delete
$cloud->add_fault(operation => 'storage.get', fault => $_) foreach 'half_body', 'reset_after';
$cloud->add_fault(operation => 'storage.delete', fault => 'reset_after');
$run = start('far', asks());
by_hand([ send => 'callbacks', callback(token_of($run)) ]);
is(wait_for_run($node, $run), 'succeeded', 'answers that are lost');
$cloud->add_fault(operation => 'storage.delete', fault => 'hold', do_work => JSON::PP::false);
$run = start('far_sas', asks());
by_hand([ send => 'callbacks', callback(token_of($run)) ]);
$cloud->wait(operation => 'storage.delete', fault => 'hold');
kill9_backend($node, 'weir conductor');
$cloud->clear_faults;
is(wait_for_run($node, $run), 'succeeded', 'killed when it was taken and not yet deleted');
is(count_until(0, 'callbacks'), 0, 'and it is deleted all the same');

# --- refusals
create_connection($node, 'wrong', 'storage', $queues, { %key, key => 'wrong_key' });
create_connection($node, 'expired', 'storage', $queues, { %sas, token => 'expired' });
my %event = (queue => 'arrivals', event => {});
refused('a wrong key', start('wrong', \%event), qr/^user: HTTP 403: /, 'AuthenticationFailed');
refused('an expired SAS', start('expired', \%event), qr/^user: HTTP 403: /, 'AuthenticationFailed');
refused('a SAS for another queue', start('queue_sas', \%event), qr/^user: HTTP 403: /, 'AuthenticationFailed');
refused('a queue that is not there', start('key', { %event, queue => 'nowhere' }), qr/^user: HTTP 404: The specified queue does not exist/, 'QueueNotFound');
refused('a request is sent, and its queue is not there', start('key', asks(queue => 'nowhere')), qr/^user: HTTP 404: .*may still be going on/, 'QueueNotFound');
is(value("SELECT is_ok || ' ' || sign_in FROM weir.test_connection('$_')"), 'false failed', "test_connection: $_") foreach 'wrong', 'expired';

# --- a service that says back all it was asked
$cloud->add_fault(operation => 'storage.get', status => 400, times => undef, body => "no: $sas");
refused('a request that is said back', start('far_sas', \%event), qr/^user: HTTP 400: no: /, 'http_400');
$cloud->clear_faults;

# --- tokens of Microsoft Entra ID: there the local cloud's queues are
$cloud->config(queue_auth => 'bearer', identities => []);
$cloud->call('POST', 'queues', { queue => 'callbacks', create => JSON::PP::true });
create_secret($node, app => 'weir-secret');
create_connection($node, 'entra', 'storage', "$address/queue", { type => 'entra_client_secret', tenant_id => 'local', client_id => 'weir-client', client_secret => 'app', authority => $address });
create_connection($node, 'identity', 'storage', "$address/queue", { type => 'managed_identity' });
create_connection($node, 'nobody', 'storage', "$address/queue", { type => 'none' });
foreach my $connection ('entra', 'identity')
{
	my $spec = asks();
	$spec->{request}{body}{callback} = { queue => 'callbacks', token => '{token}' };
	$run = start($connection, { %$spec, outputs => {} });
	is(wait_for_run($node, $run), 'succeeded', "$connection: a queue that wants a token") or diag(task_error($node, $run));
	is(value("SELECT is_ok FROM weir.test_connection('$connection')"), 't', "$connection: and test_connection() knows the way");
}
is($cloud->ledger(operation => 'entra.token')->[0]{scope}, 'https://storage.azure.com/.default', 'a token for storage');
is($cloud->ledger(operation => 'entra.identity')->[0]{scope}, 'https://storage.azure.com', 'of the machine, too');
refused('nobody', start('nobody', { queue => 'callbacks', event => {} }), qr/^user: HTTP 401: /, 'InvalidAuthenticationInfo');

# --- where the queues of an account in Azure are is checked when a task is defined
create_connection($node, $_, 'storage', "https://$_.blob.core.windows.net", \%key) foreach 'account', 'open';
sub define
{
	my ($name, $kind, $spec) = @_;
	my ($code, $out, $err) = $node->psql('postgres', "SELECT weir.create_pipeline('azure_' || clock_timestamp(), "
		. literal($json->encode({ parameters => { queue => { type => 'text' } }, tasks => [ { name => 'hook', kind => $kind, connection => $name, spec => $spec } ] })) . ')');
	return $err;
}
foreach my $queue ('arrivals', '{{params.queue}}')
{
	like(define('account', 'webhook', { queue => $queue, event => {} }), qr/the address where it waits is refused: host "account\.queue\.core\.windows\.net", port 443 is not in weir\.allowed_hosts/, "$queue: a queue that may not be asked");
	is(define('open', 'webhook', { queue => $queue, event => {} }), '', "$queue: one that may");
}
is(define('account', 'storage', { operation => 'list', container => 'lake' }), '', 'for files the queues need not be allowed');

# --- nothing is left over, and no secret is anywhere
is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), '0', 'no attempt is left over');
my $log = slurp_file($node->logfile);
my $tables = value("SELECT string_agg(x::text, ' ') FROM (SELECT to_jsonb(a) FROM weir.attempt a UNION ALL SELECT to_jsonb(e) FROM weir.error e "
	. 'UNION ALL SELECT to_jsonb(t) FROM weir.task_run t UNION ALL SELECT to_jsonb(c) FROM weir.connection c) AS y (x)');
foreach my $signed ($sas, $expired, $queue_sas)
{
	my ($signature) = $signed =~ /\bsig=([^&]*)/;
	foreach my $secret ($signature, $signature =~ s/%([0-9A-F]{2})/chr(hex $1)/ger)
	{
		is(index($log, $secret), -1, 'no signature is in the log of the server');
		is(index($tables, $secret), -1, 'nor in any table');
	}
}
is(index($log . $tables, $azurite->key), -1, 'neither is the key');

$node->stop;
done_testing();
