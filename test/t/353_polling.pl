# Many runs in flight are asked for by lists of them; a run that a list does
# not have is asked for by itself, whatever the reason.  All by what the
# services were asked, not by the clock.  What has to be waited for at the pace
# of polling goes on side by side.

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

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

value(q{SELECT weir.create_secret('token', 'dapi-local'); SELECT weir.create_secret('entra_secret', 'weir-secret')});

my %ways = (
	databricks => { kind => 'databricks_job', service => 'dbx', list => 'databricks.list', get => 'databricks.get', start => 'databricks.run-now', cancel => 'databricks.cancel', page => 24,
		spec => sub { my ($it, $seconds) = @_; return { job_id => $it->{number}, job_parameters => { seconds => $seconds } } } },
	one_time => { kind => 'databricks_notebook', service => 'dbx', list => 'databricks.list', get => 'databricks.get', start => 'databricks.submit', cancel => 'databricks.cancel',
		spec => sub { my ($it, $seconds) = @_; $it->{cloud}->call('POST', 'notebooks', { path => "/wait$seconds", action => 'wait', seconds => $seconds + 0 });
			return { notebook_path => "/wait$seconds" } } },
	adf => { kind => 'adf_pipeline', service => 'adf', list => 'adf.queryRuns', get => 'adf.getRun', start => 'adf.createRun', cancel => 'adf.cancel', page => 100,
		spec => sub { my ($it, $seconds) = @_; return { pipeline => 'wait', parameters => { seconds => "$seconds" } } } });
my $long = 36000;		# seconds, at the cloud's speed: until it is cancelled
my $number = 200;

# A connection, whose name is the caller that the cloud sees: several go on at
# once and share the waiting.  Jobs of its own, as lists tell of all others.
sub anew
{
	my ($name, $how, %options) = @_;
	my $way = $ways{$how};
	# lists of one-time runs have all there are
	my $own = $how eq 'one_time' ? weir_cloud(undef) : $cloud;
	my $base = $own->address . "/as-$name";
	my $it = { %$way, name => $name, how => $how, cloud => $own, number => ++$number };
	my ($auth, %more) = $how eq 'adf'
	  ? ({ type => 'entra_client_secret', tenant_id => 'local', client_id => 'weir-client', client_secret => 'entra_secret', authority => $base },
		subscription_id => 's1', resource_group => 'rg', factory => 'adf-dev', settle_seconds => 1)
	  : ({ type => 'pat', token => 'token' }, settle_seconds => 2);

	$own->call('POST', 'jobs', { job_id => $number, name => $name, parameters => { seconds => '1' }, tasks => [ { task_key => 'wait', action => 'wait' } ] }) if $how eq 'databricks';
	value("SELECT weir.create_connection('$name', '" . ($how eq 'adf' ? 'adf' : 'databricks') . "', '$base/$way->{service}', " . literal($json->encode($auth)) . ', '
		  . literal($json->encode({ request_limits => undef, %more, %options })) . ')');
	return $it;
}

# A pipeline of so many tasks whose runs take so many seconds (at the cloud's speed); a run of it
sub many
{
	my ($it, $name, $n, $seconds) = @_;
	my $spec = $it->{spec}->($it, $seconds);
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => [
		map { { name => "t$_", kind => $it->{kind}, connection => $it->{name}, spec => $spec } } (1 .. $n) ] })) . ')');
	return weir_trigger($node, $name);
}
sub newest { my ($it) = @_; my $entries = $it->{cloud}->ledger(limit => 1); return @$entries ? $entries->[0]{seq} : 0 }
sub tasks { return value("SELECT string_agg(DISTINCT status, ',') || ' ' || count(*) FROM weir.task_run WHERE run_id = $_[0]") }
sub ledger { my ($it, %query) = @_; return $it->{cloud}->ledger(caller => $it->{name}, %query) }
sub requests { my ($it, $operation, %query) = @_; return $it->{cloud}->requests($operation, caller => $it->{name}, %query) }
sub started { my ($it) = @_; return $it->{cloud}->started($it->{start}, caller => $it->{name}) }
sub fault { my ($it, %fault) = @_; return $it->{cloud}->add_fault(operation => $it->{list}, caller => $it->{name}, times => undef, %fault) }

# An entry of the ledger as often as this is there, after another.
sub asked
{
	my ($it, $operation, $count, %more) = @_;
	my $found = $it->{cloud}->wait(operation => $operation, count => $count, caller => $it->{name}, timeout_ms => 1000 * $PostgreSQL::Test::Utils::timeout_default, %more);
	cmp_ok(scalar @$found, '>=', $count, "$it->{name}: $operation is asked $count times") if @$found < $count;
	return $found;
}

# Once lists tell of all, nothing else is asked for: how soon that is, is a matter of how fast this machine is.
sub settled
{
	my ($what, @left) = @_;
	my (%asked, %from);
	foreach (1 .. 20)
	{
		$from{ $_->{name} } = newest($_) foreach @left;
		foreach my $it (@left)
		{
			my $until = asked($it, $it->{list}, 4, since => $from{ $it->{name} })->[3]{seq};
			my %singly = map { $_->{operation} => 1 } grep { $_->{seq} <= $until } @{ ledger($it, since => $from{ $it->{name} }) };
			delete $singly{ $it->{list} };
			$asked{ $it->{name} } = join(' ', sort keys %singly);
		}
		@left = grep { $asked{ $_->{name} } ne '' } @left;
		last unless @left;
	}
	is($asked{$_}, '', "$_: $what") foreach sort keys %asked;
	return;
}

# --- what is known of earlier runs, the first of which ends while all else is done
my $known = anew('known', 'databricks');
my @known = many($known, 'known', 1, 100);
my @asked;

# --- runs that end among others
my @sides = map { anew("side_$_", $_) } qw(databricks one_time adf);
foreach my $it (@sides)
{
	$it->{run} = many($it, "long_$it->{how}", 30, $long);
	$it->{short} = many($it, "short_$it->{how}", 12, 30);
}
foreach my $it (@sides)
{
	my ($how, $short) = @$it{ 'how', 'short' };
	asked($it, $it->{list}, 2);
	is(wait_for_run($node, $short), 'succeeded', "$how: runs that end among others that do not");
	is(value("SELECT count(*) FROM weir.activity WHERE run_id = $short") + 0, $how eq 'one_time' ? 0 : 12, "$how: with what is known of their tasks");
	is(started($it), 42, "$how: each was started once");
}
settled('thirty runs go on, and nothing but lists is asked for', @sides);
foreach my $it (@sides)
{
	is(tasks($it->{run}), 'running 30', "$it->{how}: all of them");
}
value('SELECT ' . join(', ', map { "weir.cancel($_->{run})" } @sides));
foreach my $it (@sides)
{
	is(wait_for_run($node, $it->{run}), 'cancelled', "$it->{how}: they can be cancelled");
	is(requests($it, $it->{cancel}), 30, "$it->{how}: each by itself");
}

# --- lists that fail.  Each through a connection of its own, as one that fails is left alone for a while.
my %passing = (
	'500' => { fault => 'status', status => 500 },
	'429' => { fault => 'status', status => 429, retry_after => 1 },
	'half a body' => { fault => 'half_body' },
	'no list' => { fault => 'not_json', body => '{"error": 7}' });
# a service whose lists do not work at all
my %lasting = (
	'always 500' => { fault => 'status', status => 500 },
	'forbidden' => { fault => 'status', status => 403, body => { error_code => 'PERMISSION_DENIED', message => 'User not authorized.' } });
# lists that have nothing of what goes on, or not all of it
my %holes = (
	'nothing' => [ '{"has_more": false}', 2, 4 ],
	'no end' => [ '{"has_more": true, "next_page_token": "offset:24"}', 6, 60 ]);
my $log = -s $node->logfile;
my %failing = map { $_ => anew('failing_' . s/ /_/gr, 'databricks', poll => { max => 1 }) } keys %passing, keys %lasting, keys %holes, 'hole';
fault($failing{$_}, %{ $lasting{$_} }) foreach keys %lasting;
fault($failing{$_}, fault => 'not_json', body => $holes{$_}[0]) foreach keys %holes;
# the second page is missing: who is on it is asked for singly, and found to go on
fault($failing{hole}, fault => 'not_json', times => 1, body => '{"has_more": false}');
$failing{$_}{run} = many($failing{$_}, "failing $_", 30, $long) foreach sort keys %failing;

foreach my $what (sort keys %lasting)
{
	my $it = $failing{$what};
	my $most = $what eq 'forbidden' ? 1 : 4;
	my $lists = asked($it, $it->{list}, $most);
	my $singly = asked($it, $it->{get}, 60, since => $lists->[-1]{seq});
	is(scalar(grep { $_->{seq} < $singly->[59]{seq} } @{ ledger($it, operation => $it->{list}) }), $most, "$what: lists are left alone, runs asked for one by one");
	ok($node->log_contains('refuses lists of runs: HTTP status 403', $log), "$what: the log says so") if $what eq 'forbidden';
}
foreach my $what (sort keys %holes)
{
	my $it = $failing{$what};
	my (undef, $pages, $most) = @{ $holes{$what} };
	my $lists = asked($it, $it->{list}, $pages);
	asked($it, $it->{get}, 60, since => $lists->[-1]{seq});
	cmp_ok(requests($it, $it->{list}), '<=', $most, "a list with $what: all are asked for one by one, and it is not tried again");
}
asked($failing{hole}, $failing{hole}{list}, 6);
settled('before its lists fail', @failing{ keys %passing });
foreach my $what (sort keys %passing)
{
	my $it = $failing{$what};
	fault($it, times => 2, %{ $passing{$what} });
	$it->{from} = newest($it);
}
foreach my $what (sort keys %passing)
{
	my $it = $failing{$what};
	my $lists = asked($it, $it->{list}, 6, since => $it->{from});
	is(scalar(grep { $_->{fault} } @{ $lists }), 2, "$what: twice, then the list goes on");
	is(requests($it, $it->{get}, since => $it->{from}), requests($it, $it->{get}, since => $lists->[5]{seq}), "$what: nobody was asked for singly meanwhile");
}
foreach my $what (sort keys %failing)
{
	is(tasks($failing{$what}{run}), 'running 30', "lists, $what: all go on");
	is(started($failing{$what}), 30, "lists, $what: each was started once");
}
value('SELECT ' . join(', ', map { "weir.cancel($_->{run})" } values %failing));
is(wait_for_run($node, $failing{$_}{run}), 'cancelled', "lists, $_: and can be cancelled") foreach sort keys %failing;

# the run of which something is known by now
is(wait_for_run($node, $known[0]), 'succeeded', 'a run of ten seconds');
push @asked, requests($known, $known->{get});
value("UPDATE weir.task_run SET started_at = ended_at - interval '1 hour' WHERE run_id = $known[0]");

# --- kill -9 while a page is awaited
my $crash = anew('crash', 'databricks');
fault($crash, fault => 'hold');
my $run = many($crash, 'crash', 30, 40);
asked($crash, $crash->{list}, 1);
$log = -s $node->logfile;
kill9_backend($node, 'weir conductor');
wait_for_restart($node, $log);
push @known, weir_trigger($node, 'known');
asked($crash, $crash->{list}, 2);
$cloud->clear_faults;
is(wait_for_run($node, $run), 'succeeded', 'a crash: all runs succeed');
is(started($crash), 30, 'a crash: each was started once');
is(value("SELECT count(*) FROM weir.attempt WHERE run_id = $run"), 30, 'a crash: in its first attempt');

# --- whoever reads the list for the others is cancelled
my $crowd = anew('crowd', 'databricks');
my @runs = many($crowd, 'first', 1, $long);
value(q{SELECT weir.create_pipeline('crowd', (definition || '{"max_concurrent_runs": 20}')::jsonb) FROM weir.pipeline_version v JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = 'first'});
push @runs, map { weir_trigger($node, 'crowd') } (1 .. 19);
asked($crowd, $crowd->{list}, 2);
fault($crowd, fault => 'hold');
asked($crowd, $crowd->{list}, 1, since => newest($crowd));
my $last = pop @runs;
value('SELECT ' . join(', ', map { "weir.cancel($_)" } @runs));
asked($crowd, $crowd->{cancel}, 18);
$cloud->clear_faults;
wait_for_run($node, $_) foreach @runs;
is(value('SELECT string_agg(DISTINCT status, \',\') FROM weir.run WHERE run_id IN (' . join(',', @runs) . ')'), 'cancelled', 'nineteen of twenty are cancelled, the one that read a list among them');
asked($crowd, $crowd->{get}, 2, since => newest($crowd));
is(value("SELECT status FROM weir.run WHERE run_id = $last"), 'running', 'and the last one is still followed');
value("SELECT weir.cancel($last)");
wait_for_run($node, $last);

# one that takes an hour is not asked about every few hundred milliseconds
is(wait_for_run($node, $known[1]), 'succeeded', 'another run of ten seconds');
push @asked, requests($known, $known->{get}) - $asked[0];
cmp_ok($asked[1], '<=', 13, "with a history of an hour it is asked about $asked[1] times, without any $asked[0] times");

# --- hundreds in flight: how many requests that takes is a matter of pages, and memory does not grow
sub memory
{
	my ($kilobytes) = slurp_file('/proc/' . backend_pid($node, 'weir conductor') . '/status') =~ /RssAnon:\s+(\d+)/;
	return $kilobytes;
}
my %crowds = (databricks => 480, adf => 1000);	# twenty pages, ten pages
my @crowds = map { anew("crowd_$_", $_) } sort keys %crowds;
$_->{run} = many($_, $_->{name}, $_->{n} = $crowds{ $_->{how} }, $long) foreach @crowds;
foreach my $it (@crowds)
{
	wait_until($node, "$it->{how}: all are in flight",
		"SELECT count(*) = $it->{n} FROM weir.attempt WHERE run_id = $it->{run} AND external_run_id IS NOT NULL");
	$it->{pages} = $it->{n} / $it->{page};
	$it->{from} = newest($it);
}
# a list that has told of all of them
asked($_, $_->{list}, $_->{pages} + 1, since => $_->{from}) foreach @crowds;
my $before = memory();
$_->{from} = newest($_) foreach @crowds;
$_->{lists} = asked($_, $_->{list}, $_->{pages} + 1, since => $_->{from}) foreach @crowds;
my $after = memory();
foreach my $it (@crowds)
{
	my ($how, $pages, $lists) = @$it{ 'how', 'pages', 'lists' };
	my $singly = grep { $_->{operation} eq $it->{get} && $_->{seq} <= $lists->[$pages]{seq} } @{ ledger($it, since => $it->{from}) };
	cmp_ok($singly, '<=', 20, "$how: $it->{n} runs take $pages pages of a list, and $singly questions beside it");
	my $rate = $pages / ($lists->[$pages]{time} - $lists->[0]{time});
	cmp_ok($rate, '<=', 3, sprintf('%s: %.1f of them per second', $how, $rate));
	is(requests($it, 'entra.token'), 1, "$how: one token was enough") if $how eq 'adf';
	is(tasks($it->{run}), "running $it->{n}", "$how: all go on");
}
cmp_ok($after - $before, '<=', 1024, 'and no memory') or diag("$before kB, $after kB");
value('SELECT ' . join(', ', map { "weir.cancel($_->{run})" } @crowds));
is(wait_for_run($node, $_->{run}), 'cancelled', "$_->{how}: they are cancelled") foreach @crowds;

$node->stop;
done_testing();
