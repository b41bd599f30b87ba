# Addresses and headers as somebody hostile would write them: refused when they
# are defined, and when they come out of a parameter, an answer or the name
# service, before anything is connected to.  Credentials and default headers of
# a connection go to its own address alone.

use strict;
use warnings FATAL => 'all';

use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirFarEnd;
use WeirNames;
use WeirPreload;
use WeirSignIn;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $far = WeirFarEnd->new;
my $other = WeirFarEnd->new;
# every address below is in the list of hosts: what is looked at is the address itself
my $node = weir_node('hostile', conf => q{weir.allowed_hosts = 'localhost, 127.0.0.1, 127.0.0.2, [::1], 10.0.0.1, 169.254.169.254, 168.63.129.16, 100.100.100.200, 0.0.0.0, [::], [::ffff:127.0.0.1], [::ffff:10.0.0.1], [::ffff:169.254.169.254], [64:ff9b::a9fe:a9fe], [2002:a00:1::], [fe80::1], [fd00:ec2::254], [::10.0.0.1], api.example'
weir.allowed_private_networks = '127.0.0.1/32'
});
my ($tls, $plain) = ($far->url('tls'), $far->url('plain'));
my $ip = 'https://127.0.0.1:' . $far->port('tls');
my $elsewhere = 'https://127.0.0.1:' . $other->port('tls');

sub value { return $node->safe_psql('postgres', $_[0]) }
sub refused { my ($rc, $out, $err) = $node->psql('postgres', $_[0]); return $rc == 0 ? 'accepted' : $err }
# What is said of each of many statements; an empty text where one is accepted.
sub refusals
{
	my (@statements) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', join("\n", map { "$_;\n\\warn <<next>>" } @statements), on_error_stop => 0);
	my @said = split(/<<next>>\n?/, $err, -1);
	pop @said;
	is(scalar @said, scalar @statements, 'each statement had its answer');
	return @said;
}
sub create { my ($name, $url, $options, $auth) = @_; return "SELECT weir.create_connection('$name', 'http', " . literal($url) . ', ' . literal($json->encode($auth // {})) . ', ' . literal($json->encode($options // {})) . ')' }
sub define { my ($name, $params, @tasks) = @_; return "SELECT weir.create_pipeline('$name', " . literal($json->encode({ parameters => $params, tasks => \@tasks })) . ')' }

# --- URLs: one table for a connection, a proxy, a token endpoint and a parameter
my @hostile = (
	# what it leads to
	'https://127.0.0.2/', 'http://127.0.0.2:80/', 'https://10.0.0.1/', 'https://169.254.169.254/metadata/identity/oauth2/token',
	'http://169.254.169.254/latest/meta-data', 'https://168.63.129.16/', 'https://100.100.100.200/', 'https://0.0.0.0/', 'https://[::]/', 'https://[::1]/',
	# IPv4 in the clothes of IPv6
	'https://[::ffff:10.0.0.1]/', 'https://[::ffff:a00:1]/', 'https://[::ffff:169.254.169.254]/', 'https://[0:0:0:0:0:ffff:a9fe:a9fe]/',
	'https://[64:ff9b::a9fe:a9fe]/', 'https://[2002:a00:1::]/', 'https://[::10.0.0.1]/', 'https://[fe80::1]/', 'https://[fd00:ec2::254]/',
	# other spellings of numbers
	'https://2130706433/', 'https://0x7f000001/', 'https://0177.0.0.1/', 'https://127.1/', 'https://127.0.0.1./', 'https://127.0.0.01/', 'https://[::1%25lo]/', 'https://[::ffff:127.1]/',
	# who is the host?
	'https://api.example@127.0.0.1/', 'https://127.0.0.1\\@api.example/', 'https://api.example%2eevil.example/', 'https://api.example%00.evil.example/',
	'https://api.example#@evil.example/', 'https://evil.example?.api.example/', 'https://api.example.evil.example/', "https://api.example\x{3002}evil/", 'https://api.example:0/', 'https://api.example:443:80/',
	# schemes
	'file:///etc/passwd', 'gopher://127.0.0.1:6379/_FLUSHALL', 'ftp://api.example/', 'ldap://api.example/', 'dict://127.0.0.1:11211/stat', '//api.example/', 'javascript:alert(1)', 'https:api.example',
	# white space and control characters
	"https://api.example/\r\nX-Injected: 1", "https://api.example/\nHost: evil.example", "https://api.example/ HTTP/1.1", "https://api.example/\ta", "https://api.example/\x7f", " https://api.example/",
	# too much
	'https://api.example/' . ('a' x 9000), 'https://' . ('a' x 300) . '.example/', 'https://' . ('a.' x 200) . 'example/');

sub all_refused
{
	my ($what, $expected, $make) = @_;
	my @said = refusals(map { $make->($_) } @hostile);
	my @accepted = grep { $said[$_] !~ $expected } (0 .. $#hostile);
	is(scalar @accepted, 0, scalar(@hostile) . " hostile URLs are refused as $what");
	diag("$hostile[$_]: $said[$_]") foreach @accepted;
	return;
}
value("SELECT weir.create_secret('token', 'bearer-token-7731'); SELECT weir.create_secret('client', 'client-secret-7732')");
all_refused('base_url', qr/base_url is refused|base_url is longer|must not have a query/, sub { create('hostile', $_[0]) });
all_refused('proxy', qr/proxy is refused/, sub { create('hostile', $tls, { proxy => $_[0] =~ s{/$}{:3128}r }) });
all_refused('token_url', qr/invalid auth/, sub { create('hostile', $tls, {}, { type => 'oauth_client_secret', token_url => $_[0], client_id => 'me', client_secret => 'client' }) });
like(refused("SELECT weir.create_connection('hostile', 'http', 'https://localhost', '{}', '{\"default_headers\": {\"X-Nul\": \"a\\u0000b\"}}')"), qr/unsupported Unicode escape sequence/, 'a NUL is no text');

# --- the same out of a parameter, where nobody could look at them before
value(create('api', $tls, { ca_certificate => $far->ca, default_headers => { 'X-Team-Key' => 'default-header-7733' } }, { type => 'bearer', token => 'token' }));
all_refused('url of a task', qr/the address is refused|must not contain white space|must not contain "#"/, sub { define('hostile', {}, { name => 'call', kind => 'http', connection => 'api', spec => { url => $_[0] } }) });
value(define('asks', { url => { type => 'text', required => JSON::PP::true } }, { name => 'call', kind => 'http', connection => 'api', spec => { url => '{{params.url}}' } }));
my @urls = grep { length($_) < 8000 } @hostile;
my @runs = split /\n/, value(join(';', map { "SELECT weir.trigger('asks', " . literal($json->encode({ url => $_ })) . ')' } @urls));
wait_until($node, 'all have ended', "SELECT count(*) = 0 FROM weir.run WHERE status IN ('queued', 'running', 'cancelling')");
my %ended = map { split /\|/, $_, 2 } split /\n/, value("SELECT run_id, status || ' ' || coalesce(error_code, '') FROM weir.attempt");
my @odd = grep { $ended{ $runs[$_] } !~ /^failed (address_not_allowed|invalid_spec)$/ } (0 .. $#runs);
diag("$urls[$_]: $ended{$runs[$_]}") foreach @odd;
is(scalar @odd, 0, scalar(@urls) . ' of them out of a parameter');
is(scalar @{ $far->ledger->{requests} }, 0, 'nobody was asked anything');

# --- a name whose address is not allowed any more: the address counts, not the name
value(create('renamed', $tls, { ca_certificate => $far->ca }));
value(define('named', {}, { name => 'call', kind => 'http', connection => 'renamed', spec => { path => '/named' } }));
is(wait_for_run($node, weir_trigger($node, 'named')), 'succeeded', 'localhost is 127.0.0.1, which is allowed');
$node->append_conf('postgresql.conf', "weir.allowed_private_networks = '10.0.0.0/8'");
$node->reload;
wait_until($node, 'the setting is in force', q{SELECT current_setting('weir.allowed_private_networks') = '10.0.0.0/8'});
my $before = scalar @{ $far->ledger->{requests} };
my $run = weir_trigger($node, 'named');
is(wait_for_run($node, $run), 'failed', 'the same name, when its address is not allowed');
like(value("SELECT error_code || ': ' || error_message FROM weir.attempt WHERE run_id = $run"), qr/^address_not_allowed: address (127\.0\.0\.1|::1) is not allowed/, '... although there is a connection that was kept');
is(scalar @{ $far->ledger->{requests} }, $before, 'nothing was sent');
$node->append_conf('postgresql.conf', "weir.allowed_private_networks = '127.0.0.1/32'");
$node->reload;
wait_until($node, 'the setting is in force', q{SELECT current_setting('weir.allowed_private_networks') = '127.0.0.1/32'});

# --- headers as hostile as the URLs
my @headers = ([ 'X-Split', "a\r\nX-Injected: 1" ], [ 'X-Line', "a\nb" ], [ 'X-Return', "a\rb" ], [ 'X-Bell', "a\x07" ], [ 'X-Delete', "a\x7f" ], [ 'X-Huge', 'x' x 10000 ],
	[ "X-Na\r\nme", 'a' ], [ 'X Name', 'a' ], [ 'X:Name', 'a' ], [ '', 'a' ], [ "X-\x{e9}", 'a' ], [ 'Authorization', 'Bearer x' ], [ 'authorization', 'x' ], [ 'Proxy-Authorization', 'x' ], [ 'Cookie', 'x' ],
	[ 'Host', 'evil.example' ], [ 'Content-Length', '0' ], [ 'Transfer-Encoding', 'chunked' ], [ 'Connection', 'upgrade' ]);
my @said = refusals(map { create('hostile', $tls, { default_headers => { $_->[0] => $_->[1] } }) } @headers);
my @taken = grep { $said[$_] !~ /invalid options: / } (0 .. $#headers);
is($json->encode([ map { $headers[$_] } @taken ]), '[]', scalar(@headers) . ' hostile default headers are refused');
my @of_task = grep { $_->[0] ne 'X-Huge' } @headers;
@said = refusals(map { define('hostile', {}, { name => 'call', kind => 'http', connection => 'api', spec => { path => '/', headers => { $_->[0] => $_->[1] } } }) } @of_task);
@taken = grep { $said[$_] !~ /header/ } (0 .. $#of_task);
is($json->encode([ map { $of_task[$_] } @taken ]), '[]', '... and as headers of tasks');
value(define('headers', { text => { type => 'text', required => JSON::PP::true } }, { name => 'call', kind => 'http', connection => 'api', spec => { path => '/headers', headers => { 'X-Text' => '{{params.text}}' } } }));
my @values = ("a\r\nX-Injected: 1", "a\nb", "a\rb", "a\x{85}b", "\x01");
foreach my $text (@values)
{
	$run = value("SELECT weir.trigger('headers', " . literal($json->encode({ text => $text })) . ')');
	wait_for_run($node, $run);
}
is(scalar(grep { exists $_->{headers}{'X-Injected'} } @{ $far->ledger->{requests} }), 0, 'no header was smuggled in by a parameter');
is(scalar($far->requests('/headers')), 1, 'only the one that is text arrived');

# --- where credentials and default headers go
sub headers_at { my ($end, $path) = @_; my ($request) = $end->requests($path); return $request ? $request->{headers} : undef }
value(define('own', {}, { name => 'call', kind => 'http', connection => 'api', spec => { url => "$tls/own" } }));
is(wait_for_run($node, weir_trigger($node, 'own')), 'succeeded', 'an absolute address at the connection\'s host');
is(headers_at($far, '/own')->{Authorization}, 'Bearer bearer-token-7731', 'gets the credentials');
is(headers_at($far, '/own')->{'X-Team-Key'}, 'default-header-7733', '... and the default headers');
value(define('away', {}, { name => 'call', kind => 'http', connection => 'api', spec => { url => $other->url('plain') . '/away', headers => { 'X-Of-Task' => 'yes' } } }));
is(wait_for_run($node, weir_trigger($node, 'away')), 'succeeded', 'an absolute address elsewhere');
my $away = headers_at($other, '/away');
ok(!exists $away->{Authorization}, 'gets no credentials');
ok(!exists $away->{'X-Team-Key'}, '... no default headers');
is($away->{'X-Of-Task'}, 'yes', '... and what the task itself says');

# redirects are answers, to whatever host; nothing follows them
foreach my $status (301, 302, 303, 307, 308)
{
	value(define("moved$status", {}, { name => 'call', kind => 'http', connection => 'api', spec => { path => '/redirect', query => { status => $status, to => $other->url('plain') . '/moved' } } }));
	my $moved = weir_trigger($node, "moved$status");
	is(wait_for_run($node, $moved), 'failed', "$status");
	is(value("SELECT error_code FROM weir.attempt WHERE run_id = $moved"), "http_$status", '... is an answer');
}
is(scalar($other->requests('/moved')), 0, 'nobody followed');

# where a spec asks to follow a Location, it is followed on the own host only
my $followed = { method => 'POST', path => '/accepted', query => { to => '%s' }, poll => { header => 'Location', every => 0.1 } };
sub follow
{
	my ($name, $to, %more) = @_;
	value(define($name, {}, { name => 'call', kind => 'http', connection => 'api', spec => { %$followed, query => { to => $to }, %more } }));
	my $followed_run = weir_trigger($node, $name);
	return wait_for_run($node, $followed_run) . ' ' . value("SELECT coalesce(error_code, '') FROM weir.attempt WHERE run_id = $followed_run");
}
is(follow('here', '/here'), 'succeeded ', 'a Location on the same host');
is(headers_at($far, '/here')->{Authorization}, 'Bearer bearer-token-7731', 'is asked with credentials');
my $n = 0;
foreach my $to ($other->url('plain') . '/there', $elsewhere . '/there', "http://localhost:" . $far->port('plain') . '/there', '//127.0.0.2/there', 'https://169.254.169.254/there', "https://localhost:" . $far->port('tls') . '@evil.example/there', 'file:///etc/passwd')
{
	is(follow('there' . $n++, $to), 'failed link_not_followed', "Location: $to");
}
is(scalar($other->requests('/there')) + scalar($far->requests('/there')), 0, 'nobody was asked there');
is(follow('allowed', $other->url('plain') . '/allowed', allow_hosts => ['127.0.0.1']), 'succeeded ', 'unless the spec names the host');
my $allowed = headers_at($other, '/allowed');
ok(!exists $allowed->{Authorization} && !exists $allowed->{'X-Team-Key'}, 'then without credentials and default headers');

# --- a name that leads somewhere else by the time that it is connected to (DNS rebinding)
SKIP:
{
	my ($reason) = WeirPreload::missing();
	skip $reason, 1 if defined $reason;
	my @forbidden = ('127.0.0.2', '169.254.169.254', '10.0.0.1');
	my @moved = map { "moved$_.example" } 0 .. $#forbidden;
	my $there = WeirFarEnd->new(names => join(',', map { "DNS:$_" } @moved));
	my $names = WeirNames->new;
	my $port = $there->port('tls');
	my $trap = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.2', LocalPort => $port) or die "listen: $!";
	$node->append_conf('postgresql.conf', "weir.allowed_hosts = '" . join(', ', @moved) . "'");
	$node->stop;
	$names->start($node);
	foreach my $i (0 .. $#forbidden)
	{
		my ($name, $address) = ($moved[$i], $forbidden[$i]);
		my $what = "a name that led to 127.0.0.1 and leads to $address";
		$names->answer($name => '127.0.0.1');
		value(create("moved$i", "https://$name:$port", { ca_certificate => $there->ca }));
		value(define("moved$i", {}, { name => 'call', kind => 'http', connection => "moved$i", spec => { path => "/moved$i" } }));
		is(value("SELECT is_ok FROM weir.test_connection('moved$i')"), 't', "$what: it is good when it is defined");
		my ($asked, $requests) = ($names->asked($name), scalar @{ $there->ledger->{requests} });
		$names->answer($name => $address);
		$run = weir_trigger($node, "moved$i");
		is(wait_for_run($node, $run), 'failed', "$what: refused when it is connected to");
		like(value("SELECT error_code || ': ' || error_message FROM weir.attempt WHERE run_id = $run"), qr/^address_not_allowed: address \Q$address\E is not allowed/, '... because of the address');
		cmp_ok($names->asked($name), '>', $asked, '... which the name service gave just then');
		like(value("SELECT concat_ws(' ', is_ok, detail) FROM weir.test_connection('moved$i')"), qr/^f .*\Q$address\E/, '... and a test says so');
		is(scalar @{ $there->ledger->{requests} }, $requests, '... and nothing was sent');
		$names->answer($name => '127.0.0.1');
		is(value("SELECT is_ok FROM weir.test_connection('moved$i')"), 't', '... when it leads back, it is good again');
	}
	ok(!IO::Select->new($trap)->can_read(0), 'nobody has connected to where they led');
}

unlike(slurp_file($node->logfile), qr/bearer-token-7731|client-secret-7732/, 'no credential in the log');
is(value("SELECT count(*) FROM (SELECT t::text FROM weir.attempt t UNION ALL SELECT t::text FROM weir.task_run t UNION ALL SELECT t::text FROM weir.error t) x (t) WHERE t LIKE '%-7731%' OR t LIKE '%-7732%'"), '0', 'nor in the run log');

$node->stop;
done_testing();
