# Proxies that want to be signed in at: option proxy_secret of a connection, for
# requests, for signing in and for key vaults; what happens when a proxy does
# not take it, which is not what happens when the service does not; and that a
# tunnel is only for those who signed in for it.
# debian: tinyproxy-bin

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirFarEnd;
use WeirPackages;
use WeirSignIn;
use WeirHelper;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $far = WeirFarEnd->new;
my $node = weir_node('credentials');
my ($tls, $proxy) = ($far->url('tls'), $far->url('proxy'));
my $password = 'p%40:/ @ü-' . join('', map { chr(97 + rand 26) } 1 .. 20);
my $wrong = 'somebody-elses-' . join('', map { chr(97 + rand 26) } 1 .. 20);
my $tinyproxy;

END { my $status = $?; kill('KILL', $tinyproxy), waitpid($tinyproxy, 0) if $tinyproxy; $? = $status; }

sub value { return $node->safe_psql('postgres', $_[0]) }
sub refused { my ($sql) = @_; my ($rc, $out, $err) = $node->psql('postgres', $sql); return $rc == 0 ? 'accepted' : $err }
sub connection
{
	my ($name, $url, $options, %more) = @_;
	return "SELECT weir.create_connection('$name', '" . ($more{kind} // 'http') . "', '$url', " . literal($json->encode($more{auth} // {})) . ', ' . literal($json->encode($options)) . ')';
}
sub through { my ($secret, %more) = @_; return { ca_certificate => $far->ca, proxy => $proxy, (defined $secret ? (proxy_secret => $secret) : ()), %more } }
sub secret { my ($name, $text) = @_; value("SELECT weir.create_secret('$name', " . literal($text) . ')'); return }
my $count = 0;
sub start
{
	my ($connection, $path, %spec) = @_;
	my $name = 'ask' . ++$count;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => [ { name => 'call', kind => 'http', connection => $connection, spec => { path => $path, %spec }, retry => { max_attempts => 1 } } ] })) . ')');
	return weir_trigger($node, $name);
}
sub outcome { my ($run) = @_; return wait_for_run($node, $run) . value("SELECT coalesce(concat(' ', failure_type, ' ', error_code, ': ', error_message), '') FROM weir.attempt WHERE run_id = $run AND error_code IS NOT NULL ORDER BY attempt_no DESC LIMIT 1") }
sub ask { return outcome(start(@_)) }
sub asked { my ($path) = @_; return scalar($far->requests($path)) }
my $detail;
sub test
{
	my ($name) = @_;
	(my $steps, $detail) = split /#/, value("SELECT regexp_replace(concat_ws('|', is_ok, name_lookup, tcp, proxy, tls, sign_in, permission), ', [0-9.]+ ms', '', 'g') || '#' || coalesce(detail, '') || ' // ' || coalesce(hint, '') FROM weir.test_connection('$name')"), 2;
	return $steps;
}

# --- what may be defined
secret('right', "weir:$password");
secret('wrong', "weir:$wrong");
secret('shapeless', "nothing of the kind $wrong");
foreach my $case (
	[ through('weir:secret-pasted-here'), qr/proxy_secret does not name an existing secret.*weir\.create_secret/s ],
	[ through(''), qr/proxy_secret must be the name of a secret/ ],
	[ through(5), qr/proxy_secret must be the name of a secret/ ],
	[ through("secret-pasted-\x01"), qr/proxy_secret must be the name of a secret/ ],
	[ through('keyvault:nowhere'), qr/proxy_secret is not valid: a reference to a key vault names a connection and a secret/ ],
	[ through('keyvault:nowhere/login'), qr/connection "nowhere" of a reference to a key vault does not exist/ ],
	[ { proxy_secret => 'right' }, qr/there is a proxy_secret and no proxy/ ])
{
	my ($options, $expected) = @$case;
	my $error = refused(connection('refused', $tls, $options));
	like($error, $expected, "refused: $expected");
	like($error, qr/JSON path: \$\.proxy_secret/, '... with its path');
	unlike($error, qr/secret-pasted/, '... and without what may be the secret');
}
like(refused(connection('refused', $tls, { proxy => 'http://weir:secret-pasted@127.0.0.1:3128' })), qr/it holds credentials.*option proxy_secret/s, 'nor does it belong into the URL');
foreach my $option ('proxy', 'proxy_secret')
{
	like(refused(connection('refused', 'redis://127.0.0.1:1', { $option => 'right' }, kind => 'redis')), qr/Redis is not reached through a proxy.*JSON path: \$\.$option/s, "Redis has no $option");
}
value(connection('none', $tls, through(undef)));
value(connection('right', $tls, through('right')));
value(connection('wrong', $tls, through('wrong')));
value(connection('shapeless', $tls, through('shapeless')));
like(refused(q{SELECT weir.drop_secret('right')}), qr/cannot be dropped because connections use it/, 'a secret that a proxy is signed in to with is in use');
like(refused(q{SELECT weir.alter_connection('right', options => '{"proxy_secret": "right"}')}), qr/there is a proxy_secret and no proxy/, 'alter_connection looks, too');

# --- a proxy that asks
$far->proxy("user=weir:$password");
is(test('right'), 't|ok|ok|ok|ok|not needed|ok', 'one who may');
is(ask('right', '/right'), 'succeeded', 'a request');
my $ledger = $far->ledger;
my ($request) = grep { $_->{path} eq '/right' } @{ $ledger->{requests} };
is(join(' ', grep { /^Proxy/i } keys %{ $request->{headers} }), '', 'the service is told nothing of it');
is(scalar(grep { ($_->{headers}{'Proxy-Authorization'} // '') !~ /^Basic / } @{ $ledger->{connects} }), 0, 'the proxy with the first word');
is(test('none'), 'f|ok|ok|failed', 'one who says nothing');
like($detail, qr{the proxy wants credentials and the connection has no proxy_secret \(HTTP 407\) // Create a secret that holds "user:password"}, 'what to do');
is(test('wrong'), 'f|ok|ok|failed', 'one with another password');
like($detail, qr{the proxy does not accept the credentials of the connection's proxy_secret \(HTTP 407\) // Correct the secret}, 'what to do');
is(test('shapeless'), 'f|failed', 'one whose secret is something else');
like($detail, qr{proxy_secret: the secret is not of the form "user:password"}, 'what to do');
like(ask('none', '/none'), qr{^failed user proxy_sign_in_failed: the proxy wants credentials and the connection has no proxy_secret \(HTTP 407\)\. Create a secret}, 'a task says the same');
like(ask('wrong', '/wrong', method => 'POST'), qr{^failed user proxy_sign_in_failed: the proxy does not accept the credentials of the connection's proxy_secret}, 'with another password, too');
like(ask('shapeless', '/shapeless'), qr{^failed user proxy_sign_in_failed: proxy_secret: the secret is not of the form}, '... and with something else');
is(asked('/none') + asked('/wrong') + asked('/shapeless'), 0, 'nothing got through');
is(value('SELECT count(*) FROM weir.circuit'), '0', 'of the service that says nothing');
like(ask('right', '/status?status=401'), qr{^failed user (?!proxy).*401}, 'a service that refuses is something else');
like(ask('right', '/status?status=407'), qr{^failed \w+ (?!proxy).*407}, '... also when it uses the word of proxies');

# --- a tunnel is for those who signed in for it
$far->reset;
$far->proxy("user=weir:$password");
is(ask('right', '/own'), 'succeeded', 'somebody has a tunnel');
my $connects = @{ $far->ledger->{connects} };
is(ask('right', '/again'), 'succeeded', 'who has a tunnel uses it');
is(scalar @{ $far->ledger->{connects} }, $connects, '... again');
value(connection('same', $tls, through('right')));
is(ask('same', '/same'), 'succeeded', 'so does who has the same credentials');
is(scalar @{ $far->ledger->{connects} }, $connects, '... and trusts the same authorities');
like(ask('none', '/others'), qr{^failed user proxy_sign_in_failed}, 'who has no credentials does not get into it');
like(ask('wrong', '/others'), qr{^failed user proxy_sign_in_failed}, 'nor who has others');
is(asked('/others'), 0, 'nothing got through');

# --- it is asked again before somebody has to do something
$far->reset;
$far->proxy("third=weir:third-$password");
secret('third', "weir:third-$password");
value(connection('patient', $tls, through('third')));
my $run = start('patient', '/third', method => 'POST');
is(outcome($run), 'succeeded', 'a proxy that knows nobody for a moment');
is(join(' ', scalar @{ $far->ledger->{connects} }, asked('/third'), value("SELECT count(*) FROM weir.attempt WHERE run_id = $run")), '3 1 1', 'asked three times, in one attempt; the request was sent once');

# --- other ways to sign in
foreach my $case ([ 'ways=Negotiate,NTLM', 'by Negotiate and not by Basic' ], [ 'ways=Digest realm="x" nonce="y"', 'by Digest and not by Basic' ])
{
	my ($mode, $expected) = @$case;
	$far->proxy($mode);
	is(test('right'), 'f|ok|ok|failed', $mode);
	like($detail, qr/the proxy wants credentials, $expected.*\/\/ weir signs in at proxies with Basic/, 'is told');
}

# --- spoken to in TLS
$far->proxy("user=weir:$password");
value(connection('tls_right', $tls, { ca_certificate => $far->ca, proxy => $far->url('tls_proxy'), proxy_secret => 'right' }));
value(connection('tls_none', $tls, { ca_certificate => $far->ca, proxy => $far->url('tls_proxy') }));
is(test('tls_right'), 't|ok|ok|ok|ok|not needed|ok', 'a proxy that is spoken to in TLS');
is(ask('tls_right', '/tls'), 'succeeded', 'a request through it');
like(ask('tls_none', '/tls_none'), qr{^failed user proxy_sign_in_failed}, 'and one without credentials');

# --- signing in takes the same way
secret('client', 'client-secret-of-mine');
my %oauth = (type => 'oauth_client_secret', token_url => "$tls/issue", client_id => 'me', client_secret => 'client');
value(connection('oauth', $tls, through('right'), auth => \%oauth));
value(connection('oauth_wrong', $tls, through('wrong'), auth => \%oauth));
$far->reset;
$far->proxy("user=weir:$password");
is(ask('oauth', '/signed'), 'succeeded', 'a token, and a request with it');
is(asked('/issue'), 1, 'both through the proxy');
is((map { $_->{headers}{Authorization} } $far->requests('/signed'))[0], 'Bearer issued-by-the-far-end', '... with the token');
like(ask('oauth_wrong', '/unsigned'), qr{^failed user sign_in_failed: sign-in for connection "oauth_wrong" failed: the proxy does not accept the credentials}, 'a proxy that does not let us sign in is told from a service that does not');

# --- credentials of the proxy that are in a key vault
value(connection('vault', $tls, { ca_certificate => $far->ca }, kind => 'keyvault'));
value(connection('vaulted', $tls, through('keyvault:vault/login/v1')));
like(refused(q{SELECT weir.drop_connection('vault')}), qr/in use/, 'a vault that has them is in use');
like(refused("SELECT weir.alter_connection('vault', options => " . literal($json->encode(through('keyvault:vault/login/v1'))) . ')'), qr/leads back to connection "vault"/, 'and is not reached with what it holds');
$far->value("weir:$password");
is(ask('vaulted', '/vaulted'), 'succeeded', 'they are asked for');
$far->value("weir:new-$password");
$far->proxy("user=weir:new-$password");
# another name of the same service, to which there is no tunnel yet
value(connection('elsewhere', $tls =~ s/localhost/127.0.0.1/r, through('keyvault:vault/login/v1')));
is(ask('elsewhere', '/replaced'), 'succeeded', 'replaced in the vault and at the proxy: asked for again');
is(value(q{SELECT max(a.attempt_no) FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE t.connection_name = 'elsewhere'}), '1', '... within the attempt');
# a vault that is itself behind the proxy
$far->value('weir:a-token');
secret('login', "weir:$password");
$far->proxy("user=weir:$password");
value(connection('vault_behind', $tls, through('login'), kind => 'keyvault'));
value(connection('two_deep', $tls, { ca_certificate => $far->ca }, auth => { type => 'bearer', token => 'keyvault:vault_behind/token/v1' }));
$far->reset;
$far->value('weir:a-token');
$far->proxy("user=weir:$password");
is(ask('two_deep', '/two_deep'), 'succeeded', 'a vault behind the proxy');
is((map { $_->{headers}{Authorization} } $far->requests('/two_deep'))[0], 'Bearer weir:a-token', 'what it holds is what signs in');
is(scalar(grep { ($_->{headers}{'Proxy-Authorization'} // '') !~ /^Basic / } @{ $far->ledger->{connects} }), 0, '... and it was asked through the proxy');

# --- somebody else's proxy
SKIP:
{
	my $reason = missing_debian('tinyproxy');
	skip "tinyproxy: $reason", 7 if defined $reason;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	# its configuration has no way to write a blank or a colon
	my $word = 'w' . join('', map { chr(97 + rand 26) } 1 .. 20);
	write_file("$dir/tinyproxy.conf", "Port $port\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nAllow 127.0.0.1\nDisableViaHeader Yes\nLogLevel Info\nLogFile \"$dir/tinyproxy.log\"\nPidFile \"$dir/tinyproxy.pid\"\nConnectPort " . $far->port('tls') . "\nBasicAuth weir $word\n");
	$tinyproxy = fork_helper("$dir/out", sub { exec(debian_program('tinyproxy'), '-d', '-c', "$dir/tinyproxy.conf") });
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	until (-s "$dir/tinyproxy.log" && file_text("$dir/tinyproxy.log") =~ /Accepting connections|listening on/i)
	{
		die 'tinyproxy did not start: ' . file_text("$dir/out") if waitpid($tinyproxy, POSIX::WNOHANG()) != 0 || time > $limit;
		select(undef, undef, undef, 0.05);
	}
	secret('tiny', "weir:$word");
	my %tiny = (ca_certificate => $far->ca, proxy => "http://127.0.0.1:$port");
	value(connection('tiny', $tls, { %tiny, proxy_secret => 'tiny' }));
	value(connection('tiny_wrong', $tls, { %tiny, proxy_secret => 'wrong' }));
	value(connection('tiny_none', $tls, \%tiny));
	is(test('tiny'), 't|ok|ok|ok|ok|not needed|ok', 'tinyproxy lets us through');
	is(ask('tiny', '/tiny', method => 'POST'), 'succeeded', 'a request through it');
	is(asked('/tiny'), 1, '... arrived');
	like(ask('tiny_none', '/tiny_none'), qr{^failed user proxy_sign_in_failed: the proxy wants credentials}, 'without credentials');
	like(ask('tiny_wrong', '/tiny_wrong'), qr{^failed user proxy_sign_in_failed: the proxy (?:wants|does not accept)}, 'with wrong ones');
	is(asked('/tiny_none') + asked('/tiny_wrong'), 0, 'nothing got through');
	like(file_text("$dir/tinyproxy.log"), qr/CONNECT localhost:/, 'it was asked to connect');
}

# --- nowhere to be seen
my $seen = slurp_file($node->logfile) . value('SELECT json_agg(c) FROM weir.connections c') . value('SELECT json_agg(a) FROM weir.attempt a');
unlike($seen, qr/\Q$wrong\E|somebody-elses|secret-pasted/, 'no password in the log, in views or attempts');
is(index($seen, substr($password, -20)), -1, '... nor the right one');

$node->stop;
done_testing();
