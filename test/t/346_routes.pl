# Through which proxy requests go and which authorities they trust: options of
# each connection, checked when it is defined, kept to when it is used, told
# about by weir.test_connection.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirFarEnd;
use WeirSignIn;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $far = WeirFarEnd->new;
my $node = weir_node('routes', conf => "weir.allowed_hosts = '127.0.0.1, localhost, [::1], nowhere.invalid, far.invalid'\nweir.allowed_private_networks = '127.0.0.0/8, ::1'\n");
my ($tls, $proxy) = ($far->url('tls'), $far->url('proxy'));

sub value { return $node->safe_psql('postgres', $_[0]) }
sub refused { my ($sql) = @_; my ($rc, $out, $err) = $node->psql('postgres', $sql); return $rc == 0 ? 'accepted' : $err }
sub connection
{
	my ($name, $url, $options, %more) = @_;
	my $auth = $more{auth} // {};
	return "SELECT weir.create_connection('$name', '" . ($more{kind} // 'http') . "', '$url', " . literal($json->encode($auth)) . ', ' . literal($json->encode($options)) . ')';
}
# A GET through a connection; returns what became of it.
my $count = 0;
sub get
{
	my ($connection, $path) = @_;
	my $name = 'get' . ++$count;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => [ { name => 'call', kind => 'http', connection => $connection, spec => { path => $path }, retry => { max_attempts => 1 } } ] })) . ')');
	my $run = weir_trigger($node, $name);
	my $status = wait_for_run($node, $run);
	return $status if $status eq 'succeeded';
	return value("SELECT error_code || ': ' || error_message FROM weir.attempt WHERE run_id = $run ORDER BY attempt_no DESC LIMIT 1");
}
# An exchange that cannot be made is tried again for minutes: look at one try of it.
my $detail;
sub test
{
	my ($name) = @_;
	(my $steps, $detail) = split /#/, value("SELECT regexp_replace(concat_ws('|', is_ok, name_lookup, tcp, proxy, tls, sign_in, permission), ', [0-9.]+ ms', '', 'g') || '#' || coalesce(detail, '') || ' // ' || coalesce(hint, '') FROM weir.test_connection('$name')"), 2;
	return $steps;
}
# What that test had to say
sub detail { return $detail }

# --- what may be defined
foreach my $case (
	[ { proxy => 'http://127.0.0.1' }, qr/proxy is refused: it has no port.*Write http:\/\/host:port/s ],
	[ { proxy => 'http://127.0.0.1:3128/' }, qr/more than a scheme, a host and a port/ ],
	[ { proxy => 'http://127.0.0.1:3128?x' }, qr/more than a scheme, a host and a port/ ],
	[ { proxy => 'http://user:word@127.0.0.1:3128' }, qr/proxy is refused/ ],
	[ { proxy => 'socks5://127.0.0.1:1080' }, qr/proxy is refused/ ],
	[ { proxy => '127.0.0.1:3128' }, qr/proxy is refused/ ],
	[ { proxy => 'http://elsewhere.example:3128' }, qr/proxy is refused: host "elsewhere.example", port 3128 is not in weir\.allowed_hosts/ ],
	[ { proxy => 'https://[::ffff:10.0.0.1]:3128' }, qr/proxy is refused/ ],
	[ { proxy => "http://127.0.0.1:3128\r\nX: y" }, qr/proxy is refused/ ],
	[ { proxy => 3128 }, qr/proxy must be a URL/ ],
	[ { ca_certificate => 'trust me' }, qr/ca_certificate is refused: it holds no certificate in PEM/ ],
	[ { ca_certificate => "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }, qr/one of its certificates cannot be read/ ],
	[ { ca_certificate => $far->ca . substr($far->ca, 0, 300) }, qr/one of its certificates cannot be read/ ],
	[ { ca_certificate => $far->ca . "-----BEGIN PRIVATE KEY-----\n" }, qr/it holds a private key/ ],
	[ { ca_certificate => 'file:' . $far->ca_file }, qr/is not below an allowed directory/ ],
	[ { ca_certificate => 'file:/etc/passwd' }, qr/is not below an allowed directory/ ],
	[ { ca_certificate => 'file:ca.pem' }, qr/must be absolute/ ],
	[ { timeout => 0 }, qr/timeout must be a number of seconds above 0/ ],
	[ { stall_timeout => '5' }, qr/stall_timeout must be a number of seconds above 0/ ],
	[ { connect_timeout => 3601 }, qr/connect_timeout must be a number of seconds above 0/ ])
{
	my ($options, $expected) = @$case;
	my $error = refused(connection('refused', $tls, $options));
	like($error, $expected, substr($json->encode($options), 0, 70));
	like($error, qr/JSON path: \$\.\w+/, '... with its path');
}
like(refused(connection('refused', $far->url('plain'), { proxy => $proxy })), qr/plain http does not go through a proxy/, 'plain http has to see its address');
like(refused(connection('refused', 'redis://127.0.0.1:1', { proxy => $proxy }, kind => 'redis')), qr/Redis is not reached through a proxy/, 'Redis goes directly');
value(connection('altered', $tls, {}));
like(refused("SELECT weir.alter_connection('altered', options => '{\"proxy\": \"http://elsewhere.example:1\"}')"), qr/proxy is refused/, 'alter_connection looks, too');

# --- authorities
value(connection('system', $tls, {}));
value(connection('own', $tls, { ca_certificate => $far->ca }));
value(connection('two', $tls, { ca_certificate => $far->stranger . $far->ca }));
value(connection('wrong', $tls, { ca_certificate => $far->stranger }));
is(test('own'), 't|ok|ok|not needed|ok|not needed|ok', 'the authority that signed it');
is(test('two'), 't|ok|ok|not needed|ok|not needed|ok', 'one of two');
is(test('system'), 'f|ok|ok|not needed|failed', 'the system does not know it');
like(detail(), qr/certificate.*\/\/ .*ca_certificate/i, 'and what to do is said');
is(test('wrong'), 'f|ok|ok|not needed|failed', 'somebody else\'s authority');
is(get('own', '/kept'), 'succeeded', 'a request');
$far->reset;
is(get('own', '/again'), 'succeeded', 'another');
my $kept = scalar @{ $far->ledger->{tls} };
is($kept, 0, 'over the connection that was kept');
value("SELECT weir.create_pipeline('distrust', '{\"tasks\": [{\"name\": \"call\", \"kind\": \"http\", \"connection\": \"wrong\", \"spec\": {\"path\": \"/distrust\"}, \"timeout\": \"2 seconds\"}]}')");
isnt(wait_for_run($node, weir_trigger($node, 'distrust')), 'succeeded', 'who trusts another authority does not get the connection that is open already');
is(scalar($far->requests('/distrust')), 0, 'and nothing of the request arrives');

my $secrets = value("SELECT current_setting('weir.secret_directories')");
value(connection('file', $tls, { ca_certificate => "file:$secrets/ca.pem" }));
is(test('file'), 'f|failed', 'a file that is not there yet');
like(detail(), qr/the ca_certificate cannot be read: .*\/\/ .*option ca_certificate/, 'is named');
like(get('file', '/early'), qr/^ca_certificate_missing: the ca_certificate cannot be read/, 'a task says so, too');
write_file("$secrets/ca.pem", 'nothing of the kind');
is(test('file'), 'f|failed', 'one that holds something else');
like(detail(), qr/the file of the ca_certificate is not usable: it holds no certificate/, 'is named, too');
write_file("$secrets/ca.pem", $far->ca);
is(test('file'), 't|ok|ok|not needed|ok|not needed|ok', 'the file is there');
is(get('file', '/file'), 'succeeded', 'and tasks go on');
symlink($far->ca_file, "$secrets/link.pem") or die "symlink: $!";
like(refused(connection('refused', $tls, { ca_certificate => "file:$secrets/link.pem" })), qr/is not below an allowed directory/, 'a link that leads out of the directory');

# --- through a proxy
value(connection('tunnel', $tls, { ca_certificate => $far->ca, proxy => $proxy }, auth => { type => 'bearer', token => 'api_token' })) if value("SELECT weir.create_secret('api_token', 'very-secret-token-1') IS NOT NULL") ne '';
$far->reset;
is(test('tunnel'), 't|ok|ok|ok|ok|ok|ok', 'a proxy that lets us through');
is(get('tunnel', '/through'), 'succeeded', 'a request through it');
my $ledger = $far->ledger;
my ($request) = grep { $_->{path} eq '/through' } @{ $ledger->{requests} };
is($request->{headers}{Authorization}, 'Bearer very-secret-token-1', 'the service gets the credentials');
cmp_ok(scalar @{ $ledger->{connects} }, '>=', 1, 'the proxy gets CONNECT');
is_deeply([ grep { $_->{target} ne 'localhost:' . $far->port('tls') } @{ $ledger->{connects} } ], [], '... with host and port');
unlike($json->encode($ledger->{connects}), qr/very-secret|Authorization|Idempotency|through/, '... and nothing of the request');
is($ledger->{proxied}, 0, 'it is never asked for anything else');
$far->reset;
is(get('tunnel', '/through2'), 'succeeded', 'once more');
is(scalar @{ $far->ledger->{connects} }, 0, 'through the tunnel that was kept');

value(connection('tls_tunnel', $tls, { ca_certificate => $far->ca, proxy => $far->url('tls_proxy') }));
is(test('tls_tunnel'), 't|ok|ok|ok|ok|not needed|ok', 'a proxy that is spoken to in TLS, known to the same authority');
is(get('tls_tunnel', '/safe'), 'succeeded', 'a request through it');
value(connection('tls_tunnel_unknown', $tls, { proxy => $far->url('tls_proxy') }));
is(test('tls_tunnel_unknown'), 'f|ok|ok|failed', 'a proxy nobody vouches for');
like(detail(), qr/certificate of the proxy/, 'is told from a service nobody vouches for');
value(connection('tunnel_unknown', $tls, { proxy => $proxy }));
is(test('tunnel_unknown'), 'f|ok|ok|ok|failed', 'a service nobody vouches for, behind a proxy');

SKIP:
{
	skip 'there is no IPv6 here', 2 unless defined $far->url('tls6');
	value(connection('tunnel6', $far->url('tls6'), { ca_certificate => $far->ca, proxy => $proxy }));
	$far->reset;
	is(test('tunnel6'), 't|ok|ok|ok|ok|not needed|ok', 'to an IPv6 address');
	is($far->ledger->{connects}[0]{target}, '[::1]:' . $far->port('tls6'), 'in brackets');
}

# What the proxy says
foreach my $case ([ '403', qr/the proxy answered HTTP 403.*\/\/ Ask who runs the proxy/ ], [ '407', qr/the proxy wants credentials.*HTTP 407.*\/\/ Create a secret/ ],
	[ '502', qr/HTTP 502.*\/\/ The proxy does not reach the service/ ], [ 'close', qr/\/\/ Is it a proxy that understands CONNECT/ ])
{
	my ($mode, $expected) = @$case;
	$far->proxy($mode);
	is(test('tunnel'), 'f|ok|ok|failed', "proxy: $mode");
	like(detail(), $expected, '... explained');
}
# who trusts others is not let into a tunnel that was kept
value(connection('untried', $tls, { ca_certificate => $far->stranger . $far->ca, proxy => $proxy }));
value("SELECT weir.create_pipeline('refused', '{\"tasks\": [{\"name\": \"call\", \"kind\": \"http\", \"connection\": \"untried\", \"spec\": {\"path\": \"/not-sent\", \"method\": \"POST\"}, \"timeout\": \"40 seconds\"}]}')");
$far->reset;
$far->proxy('403');
my $run = weir_trigger($node, 'refused');
my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
select(undef, undef, undef, 0.05) until scalar @{ $far->ledger->{connects} } >= 2 || time > $limit;
cmp_ok(scalar @{ $far->ledger->{connects} }, '>=', 2, 'a proxy that refuses is asked again');
is(value("SELECT status FROM weir.attempt WHERE run_id = $run"), 'intended', '... the attempt does not count as begun');
is(scalar($far->requests('/not-sent')), 0, '... and nothing of the request arrives');
$far->proxy('open');
is(wait_for_run($node, $run), 'succeeded', 'a POST that a proxy refused was never sent: it is sent when the proxy lets it through');
is(scalar($far->requests('/not-sent')), 1, 'once');

my $free = PostgreSQL::Test::Cluster::get_free_port();
value(connection('shut', $tls, { ca_certificate => $far->ca, proxy => "http://127.0.0.1:$free" }));
is(test('shut'), 'f|ok|failed', 'no proxy there');
like(detail(), qr/port of the proxy right/, 'is explained');
value(connection('nowhere', $tls, { ca_certificate => $far->ca, proxy => 'https://nowhere.invalid:3128' }));
is(test('nowhere'), 'f|failed', 'a proxy without address');
like(detail(), qr/Correct the host in the connection's option proxy/, 'is explained');
value(connection('service', $tls, { ca_certificate => $far->ca, proxy => $far->url('plain') }));
is(test('service'), 'f|ok|ok|failed', 'something that is no proxy');

# A name only the proxy can resolve
value(connection('behind', 'https://far.invalid:8443', { ca_certificate => $far->ca, proxy => $proxy }));
is(test('behind'), 'f|ok|ok|failed', 'the proxy resolves names');
like(detail(), qr/HTTP 502/, '... and says when it cannot');

# --- signing in takes the same way
value("SELECT weir.create_secret('client', 'client-secret-of-mine')");
value(connection('oauth', $tls, { ca_certificate => $far->ca, proxy => $proxy }, auth => { type => 'oauth_client_secret', token_url => "$tls/token", client_id => 'me', client_secret => 'client' }));
$far->reset;
like(test('oauth'), qr/^f\|ok\|ok\|ok\|ok\|failed/, 'a token endpoint that gives none');
is(scalar($far->requests('/token')), 1, 'was asked');
cmp_ok(scalar @{ $far->ledger->{connects} }, '>=', 2, '... through the proxy');

# --- the policy holds for the proxy when it is used, too
$node->append_conf('postgresql.conf', "weir.allowed_private_networks = '::1'");
$node->reload;
wait_until($node, 'the setting is in force', q{SELECT current_setting('weir.allowed_private_networks') = '::1'});
is(test('tunnel'), 'f|failed', 'the policy changed');
like(detail(), qr/the proxy is refused: address 127\.0\.0\.1/, 'an address that is not allowed any more');
like(get('tunnel', '/refused'), qr/^address_not_allowed: /, 'is not connected to');
$node->append_conf('postgresql.conf', "weir.allowed_hosts = 'localhost'\nweir.allowed_private_networks = '127.0.0.0/8'");
$node->reload;
wait_until($node, 'the setting is in force', q{SELECT current_setting('weir.allowed_hosts') = 'localhost'});
like(get('tunnel', '/refused'), qr/^address_not_allowed: the proxy is not allowed: host "127\.0\.0\.1"/, 'nor is a host that is not allowed any more');
is(scalar($far->requests('/refused')), 0, 'nothing got through');
unlike(slurp_file($node->logfile), qr/very-secret-token|client-secret-of-mine/, 'no credential in the log');

$node->stop;
done_testing();
