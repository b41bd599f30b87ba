# What comes back has limits: bytes of headers and of the unpacked body, time
# in all, and time without progress.  Connections are kept and shared: counted
# at the server, with HTTP/1.1 and with HTTP/2.

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirFarEnd;
use WeirSignIn;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $far = WeirFarEnd->new;
my $node = weir_node('answers', conf => "weir.http_max_body = 1MB\nweir.http_timeout = '600s'\nweir.http_stall_timeout = '2s'\n");
my $tls = $far->url('tls');

sub value { return $node->safe_psql('postgres', $_[0]) }
sub connection { my ($name, $url, $options) = @_; value("SELECT weir.create_connection('$name', 'http', '$url', '{}', " . literal($json->encode({ ca_certificate => $far->ca, %{ $options // {} } })) . ')'); return }
# A POST that must not be repeated is tried once: what became of it is in its attempt.
sub once { my ($name, $path, %more) = @_; return { name => $name, kind => 'http', connection => $more{connection} // 'far', spec => { method => 'POST', path => $path }, retry => { max_attempts => 1 } } }
sub run_tasks
{
	my ($name, @tasks) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => \@tasks })) . ')');
	my $run = weir_trigger($node, $name);
	wait_for_run($node, $run);
	return $run;
}
sub of_task { my ($run, $task) = @_; return value("SELECT concat_ws(' ', a.status, a.error_code, a.error_message) FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE t.run_id = $run AND t.task_name = '$task'") }
sub memory { my ($text) = (slurp_file("/proc/" . backend_pid($node, 'weir conductor%') . "/status") =~ /VmHWM:\s+(\d+) kB/); return $text / 1024 }

connection('far', $tls);
connection('impatient', $tls, { timeout => 1.5 });
connection('patient', $tls, { stall_timeout => 30 });
is(wait_for_run($node, run_tasks('warm', once('call', '/warm'))), 'succeeded', 'it is there');
my $before = memory();
my $run = run_tasks('limits',
	once('bomb', '/bomb?mb=1024'), once('packed', '/packed'), once('broken', '/broken'), once('layers', '/layers'),
	once('stall', '/stall'), once('trickle', '/trickle'), once('steady', '/steady'), once('thinks', '/thinks?seconds=4'), once('hints', '/hints?seconds=4'),
	once('many', '/many-headers'), once('huge', '/huge-header'), once('odd', '/odd-headers'), once('nul', '/nul-header'),
	once('total', '/thinks?seconds=4', connection => 'impatient'), once('total_trickle', '/trickle', connection => 'impatient'),
	once('patient', '/status?status=200', connection => 'patient'));

like(of_task($run, 'bomb'), qr/^failed outcome_unknown response body exceeds the limit of 1048576 bytes/, 'a gigabyte that was packed into one megabyte is cut');
cmp_ok(memory() - $before, '<', 60, 'and costs no memory') or diag("MB before: $before");
is(of_task($run, 'packed'), 'succeeded', 'what is packed is unpacked');
is(value("SELECT length(output->'body'->>'packed') FROM weir.task_run WHERE run_id = $run AND task_name = 'packed'"), '100000', '... whole');
like(of_task($run, 'broken'), qr/^failed outcome_unknown .*content unencoding/i, 'what says it is packed and is not');
like(of_task($run, 'layers'), qr/^failed outcome_unknown .*(content.encoding|exceeds the limit)/i, 'ten layers of packing');
like(of_task($run, 'stall'), qr/^failed outcome_unknown the answer stalled: for 2 s less than 100 bytes a second came/, 'an answer that begins and stops');
like(of_task($run, 'trickle'), qr/^failed outcome_unknown the answer stalled/, 'an answer that comes byte by byte');
is(of_task($run, 'steady'), 'succeeded', 'one that is slow and goes on');
is(of_task($run, 'thinks'), 'succeeded', 'one that takes its time to begin');
is(of_task($run, 'hints'), 'succeeded', '... although early hints came at once');
like(of_task($run, 'total'), qr/^failed outcome_unknown no complete answer within 1500 ms/, 'the timeout of a connection');
like(of_task($run, 'total_trickle'), qr/^failed outcome_unknown no complete answer within 1500 ms/, 'holds for what trickles');
like(of_task($run, 'many'), qr/^failed outcome_unknown response headers exceed the limit of 65536 bytes/, 'two hundred long headers');
like(of_task($run, 'huge'), qr/^failed outcome_unknown .*(headers exceed the limit|headers is too long|too large|larger than allowed)/i, 'one that is half a megabyte');
is(of_task($run, 'odd'), 'succeeded', 'control characters, a lone CR and bytes that are no text are harmless');
like(of_task($run, 'nul'), qr/^(succeeded$|failed outcome_unknown .*nul)/i, 'so is a NUL');
is(of_task($run, 'patient'), 'succeeded', 'a connection of more patience');
like(value("SELECT coalesce(string_agg(output::text, ''), '') FROM weir.task_run WHERE run_id = $run AND task_name = 'odd'"), qr/^[\x20-\x7e]*$/, 'nothing of them is kept as it was');

# --- headers are kept whole, however many lines
my @counts = (0 .. 6, 9, 17, 33, 65, 130, 260, 520);
my $lines = run_tasks('lines', map { { name => "lines_$_", kind => 'http', connection => 'far', retry => { max_attempts => 1 },
	spec => { path => "/lines?count=$_", pages => { items => '$.value', next => { header => 'Link' } } } } } @counts);
is(value("SELECT output->'items' FROM weir.task_run WHERE run_id = $lines AND task_name = 'lines_$_'"), '[1, 2]', "the last of $_ lines is read") foreach @counts;

# --- connections: HTTP/1.1, one after the other and side by side
$far->reset;
$run = run_tasks('row', map { { %{ once("call$_", "/row/$_") }, $_ > 1 ? (depends_on => [ 'call' . ($_ - 1) ]) : () } } (1 .. 30));
my $ledger = $far->ledger;
is(scalar(grep { $_->{path} =~ m{^/row/} } @{ $ledger->{requests} }), 30, 'thirty requests in a row');
cmp_ok(scalar @{ $ledger->{tls} }, '<=', 1, 'over one connection at most');
is(scalar(keys %{ { map { $_->{port} => 1 } grep { $_->{path} =~ m{^/row/} } @{ $ledger->{requests} } } }), 1, '... seen from the other end');
$far->reset;
run_tasks('side', map { once("call$_", "/thinks?seconds=1") } (1 .. 12));
run_tasks('side_again', map { once("call$_", "/thinks?seconds=1") } (1 .. 12));
$ledger = $far->ledger;
is(scalar @{ $ledger->{requests} }, 24, 'twelve side by side, twice');
cmp_ok(scalar @{ $ledger->{tls} }, '<=', 12, 'over twelve connections');

# --- HTTP/2: side by side over one
SKIP:
{
	skip 'node is not installed', 4 if system('node --version >/dev/null 2>&1') != 0;
	skip 'libcurl has no HTTP/2', 4 if `curl --version 2>/dev/null` =~ /libcurl/ && `curl --version` !~ /HTTP2/;
	my $dir = $far->{dir};
	my $server = IPC::Run::start([ 'node', "$WeirTest::root/test/lib/far_end_h2.mjs", $dir ], '<', \undef, '>', \my $out, '2>', \my $err);
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	until (-s "$dir/h2.json")
	{
		die "the HTTP/2 server did not start: $err" if !$server->pumpable || time > $limit;
		$server->pump_nb;
		select(undef, undef, undef, 0.05);
	}
	connection('two', 'https://localhost:' . file_text("$dir/h2.json"));
	is(wait_for_run($node, run_tasks('first', once('call', '/first', connection => 'two'))), 'succeeded', 'a server that speaks HTTP/2');
	$run = run_tasks('together', map { once("call$_", "/together/50/$_", connection => 'two') } (1 .. 50));
	is(wait_for_run($node, $run), 'succeeded', 'fifty requests that are answered when all of them are there');
	$run = run_tasks('counts', { name => 'call', kind => 'http', connection => 'two', spec => { path => '/counts' } });
	my $counts = $json->decode(value("SELECT output->'body' FROM weir.task_run WHERE run_id = $run"));
	is($counts->{connections}, 1, 'over one connection') or diag($json->encode($counts));
	is($json->encode($counts->{versions}), '{"2.0":51}', '... all of them HTTP/2');
	$server->kill_kill;
}

$node->stop;
done_testing();
