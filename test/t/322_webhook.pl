# Callbacks through a storage queue: asked for with the attempt's token, in
# any form, twice, for many tasks at one queue, lost answers and crashes; what
# is nobody's; and events of files that came.  The queue and the ledger of the
# cloud say what was taken, and how often it was asked.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $true = JSON::PP::true;
my $node = weir_node('webhook');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

value(qq{
	SELECT weir.create_connection('queue', 'http', '$address/queue');
	SELECT weir.create_connection('svc', 'http', '$address/http')});
$cloud->call('POST', 'queues', { queue => $_, create => $true }) foreach ('callbacks', 'callbacks-poison', 'events', 'many');

sub hook { my ($spec, %more) = @_; return { name => 'hook', kind => 'webhook', connection => 'queue', spec => { every => 0.3, hide_seconds => 5, %$spec }, %more } }
sub asks
{
	my ($body, %more) = @_;
	my %callback = (queue => $more{queue} // 'callbacks', token => '{token}', %{ delete $body->{callback} // {} });
	return { queue => 'callbacks', request => { connection => 'svc', method => 'POST', path => '/jobs', id => '$.id', body => { %$body, callback => \%callback } },
		status => '$.state', succeeded => ['done'], error => { message => '$.error' }, %more };
}
sub start
{
	my ($name, @tasks) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => \@tasks })) . ')');
	return weir_trigger($node, $name);
}
sub of_task { my ($run, $what) = @_; return value("SELECT $what FROM weir.task_run WHERE run_id = $run AND task_name = 'hook'") }
sub attempts { return value("SELECT string_agg(status || coalesce(' ' || error_code, ''), ', ' ORDER BY attempt_no) FROM weir.attempt WHERE run_id = $_[0]") }
sub messages { my ($queue) = @_; return scalar(@{ $cloud->call('GET', 'queues')->{$queue} }) }
sub wait_for_empty
{
	my ($queue) = @_;
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	select(undef, undef, undef, 0.05) while messages($queue) > 0 && time < $limit;
	return messages($queue);
}

# --- raw, base64, a list, twice
my %form = (raw => {}, encoded => { encoded => 1 }, list => { list => 1 }, twice => { times => 2 });
my %run = map { $_ => start("form_$_", hook(asks({ seconds => 2, result => { rows => 5 }, callback => $form{$_} }, outputs => { rows => '$.result.rows' }, rows_written => '$.result.rows'))) } sort keys %form;
foreach my $form (sort keys %form)
{
	is(wait_for_run($node, $run{$form}), 'succeeded', "$form: the callback comes");
	is(of_task($run{$form}, "concat_ws(' ', output->'outputs'->>'rows', rows_written, output->'message'->>'state')"), '5 5 done', "$form: with its outputs");
	is(of_task($run{$form}, "external_run_id = output->'message'->>'job'"), 't', "$form: and the id the service gave");
}
is($cloud->started('http.job-start'), 4, 'four requests');

# --- one queue under two addresses: what is for who waits at the other is left for him
value(qq{SELECT weir.create_connection('alias', 'http', '@{[ $address =~ s/127\.0\.0\.1/localhost/r ]}/queue')});
my $aside = start('aside', hook(asks({ seconds => 36000 })));
wait_until($node, 'somebody listens', "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $aside");
# The right one looks seldom, so the other finds the message first.
my $right = start('right', { %{ hook(asks({ seconds => 5 }, every => 3, hide_seconds => 1)) }, connection => 'alias' });
is(wait_for_run($node, $right), 'succeeded', 'a message another one found first');
value("SELECT weir.cancel($aside)");
is(wait_for_run($node, $aside), 'cancelled', 'which has nothing to do with it');

# --- a failure is one
my $run = start('fails', hook(asks({ fail => 'no disk' })));
is(wait_for_run($node, $run), 'failed', 'a callback that says failed');
is(of_task($run, 'error_message'), 'no disk', 'and why');
# What comes when nobody listens stays until somebody does.
my $listener = start('listens', hook(asks({ seconds => 3600 })));
is(wait_for_empty('callbacks'), 0, 'no message is left, the second of the two neither');
value("SELECT weir.cancel($listener)");
is(wait_for_run($node, $listener), 'cancelled', 'who only listened is told to stop');

# --- an answer that is lost: the callback tells
foreach my $fault ('reset_after', 'half_body')
{
	my $before = $cloud->started('http.job-start');
	$cloud->add_fault(operation => 'http.job-start', fault => $fault);
	$run = start("lost_$fault", hook(asks({ seconds => 1 })));
	is(wait_for_run($node, $run), 'succeeded', "$fault: the callback tells");
	is($cloud->started('http.job-start') - $before, 1, "$fault: asked once");
}
$run = start('refused', hook({ %{ asks({}) }, request => { connection => 'svc', method => 'POST', path => '/status/422', body => '{token}' } }));
is(wait_for_run($node, $run), 'failed', 'a request that is refused');

# --- many at one queue: all get theirs, and the queue is asked at the pace of one
my ($since) = map { $_->{seq} } @{ $cloud->ledger(limit => 1) };
my $one = hook(asks({ seconds => '{{item}}', result => { item => '{{item}}' }, callback => { queue => 'many' } }, queue => 'many', outputs => { item => '$.result.item' }));
delete $one->{name};
my $many = start('many', { name => 'each', kind => 'for_each', spec => { items => [ 1 .. 60 ], concurrency => 60, task => $one } });
is(wait_for_run($node, $many), 'succeeded', 'sixty that wait at one queue');
is(value("SELECT count(*) FROM weir.task_run WHERE run_id = $many AND item_no > 0 AND (output->'outputs'->>'item')::int = item_no"), '60', 'each got its own');
cmp_ok(scalar(@{ $cloud->ledger(operation => 'queue.get', path => '/queue/many/messages', since => $since) }), '<', 200, 'and the queue was not asked by each of them');
is(wait_for_empty('many'), 0, 'nothing is left');

# --- what is nobody's
$cloud->call('POST', 'queues', { queue => 'callbacks', text => 'not JSON & <b>' });
$cloud->call('POST', 'queues', { queue => 'callbacks', json => { token => 'weir-other-1-1', state => 'done' } });
$run = start('waits', hook({ %{ asks({ seconds => 36000 }) }, poison_after => 3, hide_seconds => 1 }));
my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
select(undef, undef, undef, 0.05) while messages('callbacks-poison') < 2 && time < $limit;
is(messages('callbacks-poison'), 2, 'what cannot be read, and what nobody here waits for, goes to the poison queue');
like($json->encode($cloud->call('GET', 'queues')->{'callbacks-poison'}), qr/not JSON & <b>/, 'as it was');
is(wait_for_empty('callbacks'), 0, 'and out of the way');
like(value("SELECT string_agg(waiting_for || ' ' || detail, '') FROM weir.why($run)"), qr/engine/, 'why');
value("SELECT weir.cancel($run)");
isnt(wait_for_run($node, $run), 'succeeded', 'cancelled');
like(of_task($run, 'error_message'), qr/may still be going on/, 'and it says that the service was not');

# --- weather
$cloud->add_fault(operation => 'queue.get', path => '/queue/callbacks/messages', %$_)
  foreach ({ fault => 'status', status => 503 }, { fault => 'half_body' }, { fault => 'html', status => 200 });
$cloud->add_fault(operation => 'queue.delete', fault => 'reset_before');
$run = start('weather', hook(asks({ seconds => 2 })));
is(wait_for_run($node, $run), 'succeeded', 'bad weather passes');
$cloud->clear_faults;
$cloud->config(queue_auth => 'bearer');
$run = start('no_auth', hook({ queue => 'events', event => {} }));
is(wait_for_run($node, $run), 'failed', 'a queue that wants credentials');
$cloud->config(queue_auth => 'none');

# --- files that came
sub event
{
	my ($path, %more) = @_;
	my $api = delete $more{api} // 'PutBlob';
	return { id => "e-$path", eventType => 'Microsoft.Storage.BlobCreated', eventTime => '2026-11-21T10:00:00Z', subject => "/blobServices/default/containers/landing/blobs/$path",
		data => { api => $api, url => "https://acct.blob/landing/$path", eTag => '0x8D', contentLength => 524288 }, %more };
}
sub arrives { my ($event, %more) = @_; return $cloud->call('POST', 'queues', { queue => 'events', json => $event, %more }) }
my $csv = start('csv', hook({ queue => 'events', event => { container => 'landing', prefix => 'flights/', suffix => '.csv' } }));
my $other = start('other', hook({ queue => 'events', event => { prefix => 'planes/' } }));
arrives(event('flights/2026.txt'));
arrives(event('flights/2026.csv', api => 'CreateFile'));
arrives(event('planes/p.parquet'), encoded => 1);
is(wait_for_run($node, $other), 'succeeded', 'a file that came');
is(of_task($other, "concat_ws(' ', output->>'container', output->>'path', output->>'bytes')"), 'landing planes/p.parquet 524288', 'which');
is(value("SELECT status FROM weir.run WHERE run_id = $csv"), 'running', 'an empty file, and another one, are not what was waited for');
arrives(event('flights/2026.csv', api => 'FlushWithClose'));
is(wait_for_run($node, $csv), 'succeeded', 'the whole one is');

# the same event once more is not another file
arrives(event('flights/2026.csv', api => 'FlushWithClose'));
my $again = weir_trigger($node, 'csv');
wait_until($node, 'the duplicate was seen', "SELECT count(*) > 0 FROM weir.attempt WHERE run_id = $again");
$cloud->wait(operation => 'queue.delete', started => 'true', count => 1 + scalar(@{ $cloud->ledger(operation => 'queue.delete', started => 'true') }));
is(value("SELECT status FROM weir.run WHERE run_id = $again"), 'running', 'a duplicate is thrown away');
arrives(event('flights/2027.csv'));
is(wait_for_run($node, $again), 'succeeded', 'the next file is not');
is(of_task($again, "output->>'path'"), 'flights/2027.csv', 'it is that one');

# --- kill -9
sub kill_conductor { return kill9_backend($node, 'weir conductor') }
my $before = $cloud->started('http.job-start');
$run = start('killed_waiting', hook(asks({ seconds => 30 })));
wait_until($node, 'it waits', "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run AND task_name = 'hook'");
kill_conductor();
is(wait_for_run($node, $run), 'succeeded', 'killed while it waits');
my $hold = $cloud->add_fault(operation => 'queue.delete', fault => 'hold', do_work => JSON::PP::false)->{faults}[0]{id};
$run = start('killed_taken', hook(asks({ seconds => 1 })));
$cloud->wait(operation => 'queue.delete', fault => 'hold');
kill_conductor();
$cloud->call('DELETE', "faults/$hold");
is(wait_for_run($node, $run), 'succeeded', 'killed when it was taken and not yet deleted');
$cloud->add_fault(operation => 'http.job-start', fault => 'delay', delay_ms => 600000);
$run = start('killed_start', hook(asks({ seconds => 1 })));
$cloud->wait(operation => 'http.job-start', fault => 'delay', started => 'true');
kill_conductor();
is(wait_for_run($node, $run), 'succeeded', 'killed before the answer to the request');
is($cloud->started('http.job-start') - $before, 3, 'three requests');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), 0, 'no attempt is left over');
my ($code, $out, $err) = $node->psql('postgres', "SELECT weir.drop_connection('svc')");
like($err, qr/cannot be dropped because it is in use/, 'the connection of the request is in use');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal/, 'nothing died');
$node->stop;
done_testing();
