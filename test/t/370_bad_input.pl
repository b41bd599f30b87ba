# What clouds answer to what was set up wrongly: credentials that are not good
# any more, permissions that are missing, names of nothing, pages for people
# and answers without end.  For every kind that it can happen to: the log says
# what it is and what to do, whose error it is, and nothing is tried again that
# another try cannot help.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirCuts;
use WeirSignIn;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('bad', conf => "weir.max_sql_workers = 1\nweir.http_max_body = '11MB'\nweir.cancel_grace = '2s'\n");
my $cloud = weir_cloud(undef, speed => 20);
my $address = $cloud->address;
my $cuts = WeirCuts->new($node, $cloud);
my @kinds = sort keys %WeirCuts::kinds;
my %poll = (job => 'databricks.get', notebook => 'databricks.get', statement => 'databricks.statement', update => 'databricks.pipeline-update',
	adf => 'adf.getRun', fabric => 'fabric.get', follow => 'http.job-get', hook => 'queue.get');

sub value { return $node->safe_psql('postgres', $_[0]) }

# --- answers: [what, the exchanges it happens to, the fault, code, message, detail, but not these kinds];
# without a code it does no harm.  Any answer will do for a plain call, and the first of a move has no body.
my @answers = (
	[ 'a token that was revoked', 'start', { fault => 'status', status => 401 }, qr/^(401|ExpiredAuthenticationToken|TokenExpired)$/, qr/HTTP 401/, qr/wrong, expired or revoked.*weir\.alter_secret/ ],
	[ 'a token that is revoked while it runs', 'poll', { fault => 'status', status => 401 }, qr/401|Expired/, qr/HTTP 401.*may still be going on/, qr/wrong, expired or revoked/ ],
	[ 'no permission', 'start', { fault => 'status', status => 403, body => { error => { code => 'AuthorizationFailed', message => 'no role assignment' }, error_code => 'PERMISSION_DENIED' } },
		qr/AuthorizationFailed|PERMISSION_DENIED|http_403/, qr/HTTP 403/, qr/does not permit it\. Give the identity/ ],
	[ 'no permission to look', 'poll', { fault => 'status', status => 403, body => { error => { code => 'AuthorizationFailed', message => 'no role assignment' } } },
		qr/AuthorizationFailed/, qr/HTTP 403: no role assignment.*may still be going on/, qr/does not permit it\. Give the identity/ ],
	[ 'pages for people', 'all', { fault => 'html', status => 200 }, qr/./, qr/web page|HTTP 200: 502 Bad Gateway|no JSON|no id at|cannot be looked at/, qr/Something else than the service answers.*base_url/, 'key', 'post', 'hook' ],
	[ 'ten megabytes', 'poll', { fault => 'huge', mb => 10, times => 1 } ],
	[ 'an answer without end', 'all', { fault => 'huge', mb => 12 }, qr/./, qr/exceeds the limit of/, qr/weir\.http_max_body/, 'move', 'hook' ]);

my (%run, %caller);
foreach my $case (@answers)
{
	my ($what, $which, $fault, undef, undef, undef, @except) = @$case;
	foreach my $name (@kinds)
	{
		my @operations = $which eq 'start' ? @{ $WeirCuts::kinds{$name}{works} } : $which eq 'all' ? '*' : ($poll{$name} // ());
		next if !@operations || grep { $_ eq $name } @except;
		my ($pipeline, $caller) = $cuts->define($name, 1, on_uncertain => 'fail', $fault->{times} ? () : (timeout => '40 seconds'));
		$cloud->add_fault(caller => $caller, operation => $_, times => undef, %$fault) foreach @operations;
		$run{$what}{$name} = weir_trigger($node, $pipeline);
		$caller{$what}{$name} = $caller;
	}
}

sub failed
{
	my ($what, $run, $code, $message, $detail) = @_;
	is(wait_for_run($node, $run), 'failed', "$what: fails");
	my $row = decode_json(value("SELECT to_jsonb(x) FROM (SELECT a.attempt_no, a.error_code, a.failure_type, e.message, coalesce(e.detail, '') AS detail "
		. "FROM weir.attempt a LEFT JOIN weir.error e USING (task_run_id, attempt_no) WHERE a.run_id = $run ORDER BY a.attempt_no DESC LIMIT 1) x"));
	like($row->{error_code}, $code, "$what: code");
	like($row->{message}, $message, "$what: says what it is");
	like($row->{detail}, $detail, "$what: and what to do");
	is("$row->{failure_type} $row->{attempt_no}", 'user 1', "$what: somebody has to act, and nothing is tried again") or diag(explain($row));
	return;
}

foreach my $case (@answers)
{
	my ($what, $which, $fault, $code, $message, $detail) = @$case;
	foreach my $name (sort keys %{ $run{$what} })
	{
		if (defined $code)
		{
			failed("$name, $what", $run{$what}{$name}, $code, $message, $detail);
			cmp_ok(scalar @{ $cloud->ledger(caller => $caller{$what}{$name}) }, '<=', 12, "$name, $what: asked a few times only");
		}
		else
		{
			is(wait_for_run($node, $run{$what}{$name}), 'succeeded', "$name, $what: does no harm");
		}
	}
}

# --- what runs is not given up because a page is in the way, but its timeout says so
my %late;
foreach my $name ('adf', 'job', 'follow', 'hook')
{
	my ($pipeline, $caller) = $cuts->define($name, 1, timeout => '5 seconds');
	$cloud->add_fault(caller => $caller, operation => $poll{$name}, times => undef, fault => 'html', status => 200);
	$late{$name} = weir_trigger($node, $pipeline);
}
foreach my $name (sort keys %late)
{
	is(wait_for_run($node, $late{$name}), 'failed', "$name, a page in the way: out of time");
	like(value("SELECT error_message FROM weir.attempt WHERE run_id = $late{$name}"), qr/^attempt timeout exceeded; .*; latest trouble: HTTP 200, but the answer is a web page/, "$name, a page in the way: and the log says what came back");
}

# --- nor where one signs in
{
	local $WeirCuts::kinds{adf}{connection}[2] = { type => 'entra_client_secret', tenant_id => 'local', authority => $address, client_id => 'weir-client', client_secret => 'portal' };
	create_secret($node, 'portal', 'weir-secret');
	my ($pipeline, $caller) = $cuts->define('adf', 1, timeout => '5 seconds');
	$cloud->add_fault(operation => 'entra.token', client_id => 'weir-client', times => undef, fault => 'html', status => 200);
	my $portal = weir_trigger($node, $pipeline);
	is(wait_for_run($node, $portal), 'failed', 'a page where one signs in: out of time');
	like(value("SELECT error_message FROM weir.attempt WHERE run_id = $portal"), qr/^attempt timeout exceeded.*; latest trouble: .*a web page answers in the place of the service: correct authority/, '... and the log says why');
	is(scalar @{ $cloud->ledger(caller => $caller) }, 0, '... and nothing was sent to the factory');
	$cloud->clear_faults;
}

# --- names of nothing
my %nothing = (
	job => { job_id => 999 }, statement => { statement => 'SELECT 1', warehouse_id => 'nowhere' }, serving => { endpoint => 'nothing', instances => [ [ 1 ] ] },
	update => { pipeline_id => 'nothing' }, adf => { pipeline => 'nothing' }, fabric => { item => '00000000-0000-4000-8000-000000000099', job_type => 'RunNotebook' },
	follow => { method => 'POST', path => '/nowhere', id => '$.id', poll => { path => '/{id}', status => '$.state', succeeded => ['done'] } },
	post => { method => 'POST', path => '/status/404' });
foreach my $name (sort keys %nothing)
{
	local $WeirCuts::kinds{$name}{spec} = sub { return $nothing{$name} };
	my ($pipeline) = $cuts->define($name, 1);
	$run{nothing}{$name} = weir_trigger($node, $pipeline);
}
failed("$_, a name of nothing", $run{nothing}{$_}, qr/./, qr/HTTP 40[04]: .*(not|nothing|404)/, qr/Correct the ids and names/) foreach sort keys %nothing;

# --- signing in, for every kind that does so at Entra ID
my $certificate = make_certificate('app');
my @entra = (tenant_id => 'local', authority => $address, client_id => 'weir-client');
$cloud->config(tenants => ['local'], clients => { 'weir-client' => 'weir-secret', 'expired-app' => 'weir-secret' }, expired_clients => ['expired-app'],
	certificates => { 'cert-app' => [ certificate_key($certificate) ] });
create_secret($node, 'right', 'weir-secret');
create_secret($node, 'garbage', "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
create_secret($node, 'pair', file_text("$certificate.key") . file_text("$certificate.crt"));
create_secret($node, 'key', file_text("$certificate.key"));
my %auth = (
	'wrong tenant' => [ { type => 'entra_client_secret', @entra, tenant_id => 'elsewhere', client_secret => 'right' }, qr/the tenant is not known: correct tenant_id/ ],
	'expired secret' => [ { type => 'entra_client_secret', @entra, client_id => 'expired-app', client_secret => 'right' }, qr/the client secret has expired: create a new one/ ],
	'wrong secret' => [ { type => 'entra_client_secret', @entra, client_secret => 'pair' }, qr/the client secret is not right: give the secret's value/ ],
	'malformed certificate' => [ { type => 'entra_certificate', @entra, client_id => 'cert-app', certificate => 'garbage', private_key => 'key' }, qr/secret "garbage" is no certificate to sign in with/ ],
	'clock an hour behind' => [ { type => 'entra_certificate', @entra, client_id => 'cert-app', certificate => 'pair' }, qr/the clock of the database server is 3[56]\d\d s behind that of the sign-in service: set it right/ ]);
$cloud->config(clock_offset => 3600);
foreach my $what (sort keys %auth)
{
	foreach my $name ('adf', 'fabric', 'vault', 'put', 'job')
	{
		my @connection = @{ $WeirCuts::kinds{$name}{connection} };
		$connection[2] = $auth{$what}[0];
		local $WeirCuts::kinds{$name}{connection} = \@connection;
		my ($pipeline) = $cuts->define($name, 1);
		$run{$what}{$name} = weir_trigger($node, $pipeline);
	}
}
foreach my $what (sort keys %auth)
{
	failed("$_, $what", $run{$what}{$_}, qr/^sign_in_failed$/, $auth{$what}[1], qr//) foreach sort keys %{ $run{$what} };
}
unlike(value("SELECT string_agg(e::text, ' ') FROM weir.error e") . PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/weir-secret|dapi-local|BEGIN/, 'nothing is given away');

$node->stop;
done_testing();
