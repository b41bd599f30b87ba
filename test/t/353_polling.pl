# Many runs in flight are asked for by lists of them; a run that a list does
# not have is asked for by itself, whatever the reason.  All by what the
# services were asked, not by the clock.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('polling');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

value(qq{
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_secret('entra_secret', 'weir-secret');
	SELECT weir.create_connection('dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "token"}', '{"settle_seconds": 2, "request_limits": null}');
	SELECT weir.create_connection('adf', 'adf', '$address/adf', '{"type": "entra_client_secret", "tenant_id": "local",
		"client_id": "weir-client", "client_secret": "entra_secret", "authority": "$address"}',
		'{"subscription_id": "s1", "resource_group": "rg", "factory": "adf-dev", "settle_seconds": 1, "request_limits": null}')});

my %ways = (
	databricks => { kind => 'databricks_job', connection => 'dbx', list => 'databricks.list', get => 'databricks.get', start => 'databricks.run-now',
		spec => sub { return { job_id => 102, job_parameters => { seconds => $_[0] } } } },
	one_time => { kind => 'databricks_notebook', connection => 'dbx', list => 'databricks.list', get => 'databricks.get', start => 'databricks.submit',
		spec => sub { $cloud->call('POST', 'notebooks', { path => "/wait$_[0]", action => 'wait', seconds => $_[0] + 0 }); return { notebook_path => "/wait$_[0]" } } },
	adf => { kind => 'adf_pipeline', connection => 'adf', list => 'adf.queryRuns', get => 'adf.getRun', start => 'adf.createRun',
		spec => sub { return { pipeline => 'wait', parameters => { seconds => "$_[0]" } } } });

# A pipeline of so many tasks whose runs take so many seconds (at the cloud's speed)
sub many
{
	my ($name, $how, $n, $seconds) = @_;
	my $way = $ways{$how};
	my $spec = $way->{spec}->($seconds);
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => [
		map { { name => "t$_", kind => $way->{kind}, connection => $way->{connection}, spec => $spec } } (1 .. $n) ] })) . ')');
	return;
}
sub newest { my $entries = $cloud->ledger(limit => 1); return @$entries ? $entries->[0]{seq} : 0 }
sub tasks { return value("SELECT string_agg(DISTINCT status, ',') || ' ' || count(*) FROM weir.task_run WHERE run_id = $_[0]") }

# An entry of the ledger as often as this is there, after another.
sub asked
{
	my ($operation, $count, %more) = @_;
	my $found = $cloud->wait(operation => $operation, count => $count, timeout_ms => 1000 * $PostgreSQL::Test::Utils::timeout_default, %more);
	cmp_ok(scalar @$found, '>=', $count, "$operation is asked $count times") if @$found < $count;
	return $found;
}
sub since { my ($operation, $seq) = @_; return $cloud->requests($operation, since => $seq) }

# Once lists tell of all, nothing else is asked for: how soon that is, is a matter of how fast this machine is.
sub settled
{
	my ($way, $what) = @_;
	my %asked;
	foreach (1 .. 20)
	{
		my $from = newest();
		my $until = asked($way->{list}, 4, since => $from)->[3]{seq};
		%asked = ();
		$asked{ $_->{operation} }++ foreach grep { $_->{seq} <= $until } @{ $cloud->ledger(since => $from) };
		last if join(' ', keys %asked) eq $way->{list};
	}
	is_deeply([ sort keys %asked ], [ $way->{list} ], $what) or diag($json->encode(\%asked));
	return;
}

foreach my $how (qw(databricks one_time adf))
{
	my $way = $ways{$how};
	$cloud->reset;
	many("long_$how", $how, 30, 900);
	many("short_$how", $how, 12, 30);
	my ($long, $short) = map { weir_trigger($node, "${_}_$how") } qw(long short);
	asked($way->{list}, 2);
	is(wait_for_run($node, $short), 'succeeded', "$how: runs that end among others that do not");
	is(value("SELECT count(*) FROM weir.activity WHERE run_id = $short") + 0, $how eq 'one_time' ? 0 : 12, "$how: with what is known of their tasks");
	is($cloud->started($way->{start}), 42, "$how: each was started once");

	settled($way, "$how: thirty runs go on, and nothing but lists is asked for");
	is(tasks($long), 'running 30', "$how: all of them");
	value("SELECT weir.cancel($long)");
	is(wait_for_run($node, $long), 'cancelled', "$how: they can be cancelled");
	is($cloud->requests($how eq 'adf' ? 'adf.cancel' : 'databricks.cancel'), 30, "$how: each by itself");
}

# --- lists that fail.  Each through a connection of its own, as one that fails is left alone for a while.
my $connections = 0;

sub anew
{
	my ($name, $n, $seconds) = @_;
	my $connection = 'dbx' . ++$connections;
	$cloud->clear_faults;
	$cloud->reset;
	value("SELECT weir.create_connection('$connection', 'databricks', '$address/dbx', '{\"type\": \"pat\", \"token\": \"token\"}', '{\"settle_seconds\": 2}')");
	local $ways{databricks}{connection} = $connection;
	many($name, 'databricks', $n, $seconds);
	return;
}
# They go on, and can be cancelled.
sub all_go_on
{
	my ($run, $what) = @_;
	is(tasks($run), 'running 30', "$what: all go on");
	is($cloud->started('databricks.run-now'), 30, "$what: each was started once");
	value("SELECT weir.cancel($run)");
	is(wait_for_run($node, $run), 'cancelled', "$what: and can be cancelled");
	return;
}
sub no_harm
{
	my ($run, $n, $what) = @_;
	is(wait_for_run($node, $run), 'succeeded', "$what: all runs succeed");
	is($cloud->started('databricks.run-now'), $n, "$what: each was started once");
	is(value("SELECT count(*) FROM weir.attempt WHERE run_id = $run"), $n, "$what: in its first attempt");
	return;
}

my %passing = (
	'500' => { fault => 'status', status => 500 },
	'429' => { fault => 'status', status => 429, retry_after => 1 },
	'half a body' => { fault => 'half_body' },
	'no list' => { fault => 'not_json', body => '{"error": 7}' });
foreach my $what (sort keys %passing)
{
	anew("passing $what", 30, 900);
	my $run = weir_trigger($node, "passing $what");
	settled($ways{databricks}, "$what: before");
	$cloud->add_fault(operation => 'databricks.list', times => 2, %{ $passing{$what} });
	my $from = newest();
	my $lists = asked('databricks.list', 6, since => $from);
	is(scalar(grep { $_->{fault} } @{ $lists }), 2, "$what: twice, then the list goes on");
	is(since('databricks.get', $from), since('databricks.get', $lists->[5]{seq}), "$what: nobody was asked for singly meanwhile");
	all_go_on($run, $what);
}

# a service whose lists do not work at all
my %lasting = (
	'always 500' => { fault => 'status', status => 500 },
	'forbidden' => { fault => 'status', status => 403, body => { error_code => 'PERMISSION_DENIED', message => 'User not authorized.' } });
foreach my $what (sort keys %lasting)
{
	anew($what, 30, 900);
	$cloud->add_fault(operation => 'databricks.list', times => undef, %{ $lasting{$what} });
	my $run = weir_trigger($node, $what);
	my $log = -s $node->logfile;
	my $lists = asked('databricks.list', $what eq 'forbidden' ? 1 : 4);
	asked('databricks.get', 60, since => $lists->[-1]{seq});
	is($cloud->requests('databricks.list'), $what eq 'forbidden' ? 1 : 4, "$what: lists are left alone, runs asked for one by one");
	ok($node->log_contains('refuses lists of runs: HTTP status 403', $log), "$what: the log says so") if $what eq 'forbidden';
	all_go_on($run, $what);
}

# lists that have nothing of what goes on, or not all of it
my %holes = (
	'nothing' => [ '{"has_more": false}', 2, 4 ],
	'no end' => [ '{"has_more": true, "next_page_token": "offset:24"}', 6, 60 ]);
foreach my $what (sort keys %holes)
{
	my ($body, $pages, $most) = @{ $holes{$what} };
	anew($what, 30, 900);
	$cloud->add_fault(operation => 'databricks.list', fault => 'not_json', times => undef, body => $body);
	my $run = weir_trigger($node, $what);
	my $lists = asked('databricks.list', $pages);
	asked('databricks.get', 60, since => $lists->[-1]{seq});
	cmp_ok($cloud->requests('databricks.list'), '<=', $most, "a list with $what: all are asked for one by one, and it is not tried again");
	all_go_on($run, "a list with $what");
}

# the second page is missing: who is on it is asked for singly, and found to go on
anew('hole', 30, 900);
$cloud->add_fault(operation => 'databricks.list', fault => 'not_json', times => 1, body => '{"has_more": false}');
my $holed = weir_trigger($node, 'hole');
asked('databricks.list', 6);
all_go_on($holed, 'a list with a hole');

# --- kill -9 while a page is awaited
anew('crash', 30, 40);
$cloud->add_fault(operation => 'databricks.list', fault => 'hold', times => undef);
my $run = weir_trigger($node, 'crash');
asked('databricks.list', 1);
my $log = -s $node->logfile;
kill9_backend($node, 'weir conductor');
wait_for_restart($node, $log);
asked('databricks.list', 2);
$cloud->clear_faults;
no_harm($run, 30, 'a crash');

# --- whoever reads the list for the others is cancelled
anew('cancelled', 1, 600);
value(q{SELECT weir.create_pipeline('crowd', (definition || '{"max_concurrent_runs": 20}')::jsonb) FROM weir.pipeline_version v JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'cancelled'});
my @runs = map { weir_trigger($node, 'crowd') } (1 .. 20);
asked('databricks.list', 2);
$cloud->add_fault(operation => 'databricks.list', fault => 'hold', times => undef);
asked('databricks.list', 1, since => newest());
my $last = pop @runs;
value('SELECT ' . join(', ', map { "weir.cancel($_)" } @runs));
asked('databricks.cancel', 18);
$cloud->clear_faults;
wait_for_run($node, $_) foreach @runs;
is(value('SELECT string_agg(DISTINCT status, \',\') FROM weir.run WHERE run_id IN (' . join(',', @runs) . ')'), 'cancelled', 'nineteen of twenty are cancelled, the one that read a list among them');
my $from = newest();
asked('databricks.get', 2, since => $from);
is(value("SELECT status FROM weir.run WHERE run_id = $last"), 'running', 'and the last one is still followed');
value("SELECT weir.cancel($last)");
wait_for_run($node, $last);

# --- what is known of earlier runs: one that takes an hour is not asked about every few hundred milliseconds
anew('known', 1, 100);
my @asked;
foreach my $round (1, 2)
{
	my $once = weir_trigger($node, 'known');
	my $before = $cloud->requests('databricks.get');
	is(wait_for_run($node, $once), 'succeeded', 'a run of ten seconds');
	push @asked, $cloud->requests('databricks.get') - $before;
	last if $round == 2;
	value("UPDATE weir.task_run SET started_at = ended_at - interval '1 hour' WHERE run_id = $once");
	my $size = -s $node->logfile;
	kill9_backend($node, 'weir conductor');
	wait_for_restart($node, $size);
}
cmp_ok($asked[1], '<=', 13, "with a history of an hour it is asked about $asked[1] times, without any $asked[0] times");

# --- a thousand in flight: how many requests that takes is a matter of pages, and memory does not grow
sub memory
{
	my ($kilobytes) = slurp_file('/proc/' . backend_pid($node, 'weir conductor') . '/status') =~ /RssAnon:\s+(\d+)/;
	return $kilobytes;
}
foreach my $how (qw(databricks adf))
{
	my $way = $ways{$how};
	my $pages = $how eq 'adf' ? 10 : 42;
	$cloud->clear_faults;
	$cloud->reset;
	many("thousand_$how", $how, 1000, 36000);
	my $run = weir_trigger($node, "thousand_$how");
	wait_until($node, "$how: a thousand are in flight",
		"SELECT count(*) = 1000 FROM weir.attempt WHERE run_id = $run AND external_run_id IS NOT NULL");
	# a list that has told of all of them
	asked($way->{list}, $pages + 1, since => newest());
	my $before = memory();
	my $from = newest();
	my $lists = asked($way->{list}, $pages + 1, since => $from);
	my @asked = grep { $_->{seq} <= $lists->[$pages]{seq} } @{ $cloud->ledger(since => $from) };
	my $singly = grep { $_->{operation} eq $way->{get} } @asked;
	cmp_ok($singly, '<=', 20, "$how: a thousand runs take $pages pages of a list, and $singly questions beside it");
	my $rate = $pages / ($lists->[$pages]{time} - $lists->[0]{time});
	cmp_ok($rate, '<=', 3, sprintf('%s: %.1f of them per second', $how, $rate));
	is($cloud->requests('entra.token'), 1, "$how: one token was enough") if $how eq 'adf';
	cmp_ok(memory() - $before, '<=', 1024, "$how: and no memory") or diag("$before kB, " . memory() . ' kB');
	is(tasks($run), 'running 1000', "$how: all go on");
	value("SELECT weir.cancel($run)");
	is(wait_for_run($node, $run), 'cancelled', "$how: they are cancelled");
}

$node->stop;
done_testing();
