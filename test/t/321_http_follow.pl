# HTTP services that answer before the work is done, or in pages: looks until
# it has ended, results elsewhere, cancels, lost answers, links that lead
# away, huge and broken answers, and kill -9 in the middle.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $true = JSON::PP::true;
my $node = weir_node('follow');
my $cloud = weir_cloud(undef);
my $address = $cloud->address;
my $other = weir_cloud(undef);

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }

value(qq{
	SELECT weir.create_secret('token', 'dapi-local');
	SELECT weir.create_connection('api', 'http', '$address/http', '{"type": "bearer", "token": "token"}', '{"default_headers": {"X-Team": "lake"}}')});

sub call { my ($spec, %more) = @_; return { name => 'call', kind => 'http', connection => 'api', spec => $spec, %more } }
sub start
{
	my ($name, @tasks) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => \@tasks })) . ')');
	return weir_trigger($node, $name);
}
sub of_task { my ($run, $what) = @_; return value("SELECT $what FROM weir.task_run WHERE run_id = $run AND task_name = 'call'") }
sub attempts { return value("SELECT string_agg(status || coalesce(' ' || error_code, ''), ', ' ORDER BY attempt_no) FROM weir.attempt WHERE run_id = $_[0]") }
sub external
{
	my ($run) = @_;
	wait_until($node, "run $run is followed", "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run AND task_name = 'call'");
	return of_task($run, 'external_run_id');
}

my %poll = (path => '/jobs/{id}', every => 0.2, status => '$.state', succeeded => ['done'], failed => ['failed'], cancelled => ['stopped']);
sub job
{
	my ($body, %more) = @_;
	return { method => 'POST', path => '/jobs', body => $body, id => '$.id', poll => {%poll}, error => { message => '$.error' }, %more };
}
my %lookup = (lookup => { path => '/jobs', query => { key => '{token}' }, id => '$.jobs[0].id', settle => 0.5 });

# --- the ways to say how it is
my $run = start('values', call(job({ seconds => 2, result => { rows => 7, list => [ { n => 1 }, { n => 2 } ] } },
	outputs => { rows => '$.result.rows', all => '$.result.list[*].n' }, rows_written => '$.result.rows')),
	{ name => 'after', kind => 'http', connection => 'api', depends_on => ['call'], spec => { path => '/json', query => { n => '{{tasks.call.output.outputs.rows}}' } } });
is(wait_for_run($node, $run), 'succeeded', 'a job that is looked at');
is(of_task($run, "concat_ws(' ', output->'outputs'->>'rows', output->'outputs'->>'all', rows_written)"), '7 [1, 2] 7', 'its outputs');
is(value("SELECT output->'body'->'query'->>'n' FROM weir.task_run WHERE run_id = $run AND task_name = 'after'"), '7', 'for the next task');
cmp_ok($cloud->requests('http.job-get'), '>=', 2, 'there were several looks');

$run = start('header', call({ method => 'POST', path => '/lro', body => { seconds => 1, result => { n => 5 } }, poll => { header => 'Location', every => 0.1 },
	result => { header => 'Location' }, outputs => { n => '$.n' } }));
is(wait_for_run($node, $run), 'succeeded', 'by Location, 202 and 303');
is(of_task($run, "output->'outputs'->>'n'"), '5', 'the result is where the end says');
$run = start('json', call({ method => 'POST', path => '/jobs', body => { seconds => 1 }, poll => { %poll{qw(every status succeeded)}, json => '$.links.status' } }));
is(wait_for_run($node, $run), 'succeeded', 'by a link of the body');

$cloud->config(job_retry_after => 2);
my ($since) = map { $_->{seq} } @{ $cloud->ledger(limit => 1) };
$run = start('least', call(job({ seconds => 1 })));
is(wait_for_run($node, $run), 'succeeded', 'Retry-After');
my @times = map { $_->{time} } @{ $cloud->ledger(operation => 'http.job-*', since => $since) };
cmp_ok($times[1] - $times[0], '>=', 2, 'is the least wait');
$cloud->config(job_retry_after => 0);

# --- failures
$run = start('fails', call(job({ fail => 'no disk' })));
is(wait_for_run($node, $run), 'failed', 'a job that fails');
is(of_task($run, 'error_message') . ', ' . attempts($run), 'no disk, failed failed', 'in its own words');
$run = start('lro_fails', call({ method => 'POST', path => '/lro', body => { fail => 'no disk' }, poll => { header => 'Location', every => 0.1, failed_status => [500] },
	error => { code => '$.fault.kind', message => '$.fault.text' } }));
is(wait_for_run($node, $run), 'failed', 'by its HTTP status');
is(of_task($run, 'error_message') . ', ' . attempts($run), 'HTTP 500: no disk, failed JobFailed', 'with code and message by their paths');
$run = start('no_link', call({ method => 'POST', path => '/json', poll => { header => 'Location', status => '$.nothing', succeeded => ['x'] } }));
is(wait_for_run($node, $run), 'failed', 'nothing says where to look');
is(attempts($run), 'failed link_not_followed', 'is an end, not a guess');

# --- cancel
$run = start('cancelled', call(job({ seconds => 36000 }, cancel => { path => '/jobs/{id}/stop' })));
my $id = external($run);
is(value("SELECT weir.cancel($run)"), 't', 'cancel');
is(wait_for_run($node, $run), 'cancelled', 'the run is cancelled');
is(scalar(@{ $cloud->ledger(operation => 'http.job-stop', run_id => $id) }), 1, 'and the service was told to stop');
# The pause of the spec is not for what is being stopped.
value("ALTER SYSTEM SET weir.cancel_grace = '8s'; SELECT pg_reload_conf()");
wait_until($node, 'a short grace', "SELECT setting = '8000' FROM pg_settings WHERE name = 'weir.cancel_grace'");
$run = start('stops_late', call(job({ seconds => 36000, stop_seconds => 30 }, poll => { %poll, every => 3600 }, cancel => { path => '/jobs/{id}/stop' })));
$id = external($run);
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'looked at once an hour, and it takes a while to stop');
is(attempts($run), 'cancelled cancelled', 'it is seen to have stopped');
cmp_ok(scalar(@{ $cloud->ledger(operation => 'http.job-get', run_id => $id) }), '>', 1, 'by more than one look');
value("ALTER SYSTEM RESET weir.cancel_grace; SELECT pg_reload_conf()");
wait_until($node, 'the usual grace', "SELECT setting = '60000' FROM pg_settings WHERE name = 'weir.cancel_grace'");
$run = start('cannot', call(job({ seconds => 36000 })));
external($run);
value("SELECT weir.cancel($run)");
isnt(wait_for_run($node, $run), 'succeeded', 'a job nobody can stop');
like(of_task($run, 'error_message'), qr/may still be going on, as the task has no "cancel"/, 'goes on, and that is said');
$run = start('times_out', call(job({ seconds => 36000 }, cancel => { path => '/jobs/{id}/stop' }), timeout => '2 seconds'));
is(wait_for_run($node, $run), 'failed', 'a timeout');
is(attempts($run), 'timed_out timed_out', 'stops it, too');

# --- lost answers
foreach my $case ([ 'reset_after', 1 ], [ 'half_body', 1 ], [ 'reset_before', 1 ])
{
	my ($fault, $jobs) = @$case;
	my $before = $cloud->started('http.job-start');
	$cloud->add_fault(operation => 'http.job-start', fault => $fault);
	$run = start("lost_$fault", call(job({ seconds => 1 }, %lookup)));
	is(wait_for_run($node, $run), 'succeeded', "$fault: looked for by the token");
	is($cloud->started('http.job-start') - $before, $jobs, "$fault: one job");
}
$cloud->add_fault(operation => 'http.job-start', fault => 'status', status => 502);
my $before = $cloud->started('http.job-start');
$run = start('not_there', call(job({ seconds => 1 }, %lookup)));
is(wait_for_run($node, $run), 'succeeded', 'a 502 that started nothing: sent again when it is not found');
is($cloud->started('http.job-start') - $before, 1, 'one job');
$cloud->add_fault(operation => 'http.job-start', fault => 'reset_after');
$run = start('unknown', call(job({ seconds => 1 }), retry => { max_attempts => 3, initial_delay => 0 }));
is(wait_for_run($node, $run), 'failed', 'without a way to look');
is(attempts($run), 'failed outcome_unknown', 'a person decides');
$cloud->add_fault(operation => 'http.job-start', fault => 'reset_after');
$before = $cloud->started('http.job-start');
$run = start('key', call(job({ seconds => 1 }, idempotent => $true, idempotency_header => 'X-Request-Key')));
is(wait_for_run($node, $run), 'succeeded', 'a service that knows the key, in a header of its own');
is($cloud->started('http.job-start') - $before, 1, 'one job');

# --- weather while it is looked at
my @weather = ({ fault => 'status', status => 429, retry_after => 1 }, { fault => 'status', status => 503 }, { fault => 'html' }, { fault => 'half_body' },
	{ fault => 'reset_after' }, { fault => 'not_json' }, { fault => 'huge', mb => 10 }, { fault => 'html', status => 200 });
my @runs;
foreach my $n (0 .. $#weather)
{
	my $job = start("weather_$n", call(job({ seconds => 20 })));
	$cloud->add_fault(operation => 'http.job-get', run_id => external($job), %{ $weather[$n] });
	push @runs, $job;
}
is(wait_for_run($node, $_), 'succeeded', 'bad weather passes') foreach @runs;
is(scalar(grep { $_->{struck} < 1 } @{ $cloud->call('GET', 'faults')->{faults} }), 0, 'all of it struck');
$cloud->clear_faults;
$cloud->add_fault(path => '/http/json/huge', fault => 'huge', mb => 10);
$run = start('huge', call({ path => '/json/huge', outputs => { p => '$.nothing' } }));
is(wait_for_run($node, $run), 'succeeded', '10 MB of JSON');
is(of_task($run, "concat_ws(' ', output->'outputs', output->>'truncated', length(output::text) < 300000)"), '{"p": null} true t', 'are not kept');

# --- pages
sub pages { my ($way, %pages) = @_; return call({ path => "/pages/$way", query => { count => 95, size => 10 }, pages => { items => '$.items', %pages } }) }
my %way = (next => { next => { json => q{$['@next']} } }, absolute => { next => { json => q{$['@next']} } }, link => { next => { header => 'Link' } },
	cursor => { cursor => { json => '$.cursor', parameter => 'cursor' } }, number => { number => { parameter => 'page' } });
foreach my $way (sort keys %way)
{
	$run = start("pages_$way", pages($way, %{ $way{$way} }));
	is(wait_for_run($node, $run), 'succeeded', "pages by $way");
	is(of_task($run, "concat_ws(' ', jsonb_array_length(output->'items'), output->>'pages', output->'items'->94->>'name', rows_read)"),
		($way eq 'number' ? '95 11' : '95 10') . ' item 95 95', "$way: all items in order");
}
$cloud->add_fault(operation => 'http.pages', fault => $_, after => 3) foreach ('half_body', 'reset_before', 'html');
$run = start('pages_weather', pages('next', %{ $way{next} }));
is(wait_for_run($node, $run), 'succeeded', 'pages in bad weather');
is(of_task($run, "jsonb_array_length(output->'items')"), '95', 'none is missing, none is there twice');
$cloud->clear_faults;
$run = start('pages_bound', pages('next', %{ $way{next} }, max_pages => 3));
is(wait_for_run($node, $run), 'failed', 'more pages than allowed');
is(attempts($run), 'failed too_many_pages', 'are no list');
$run = start('pages_cut', pages('next', %{ $way{next} }, max_pages => 3, truncate => $true));
is(wait_for_run($node, $run), 'succeeded', 'unless a part of it is enough');
is(of_task($run, "concat_ws(' ', jsonb_array_length(output->'items'), output->>'truncated')"), '30 true', 'and it says so');
my $each = start('each', pages('cursor', %{ $way{cursor} }), { name => 'one', kind => 'for_each', depends_on => ['call'],
	spec => { items => '{{tasks.call.output.items}}', task => { kind => 'noop', spec => {} } } });
is(wait_for_run($node, $each), 'succeeded', 'a task for every item of all pages');
is(value("SELECT count(*) FROM weir.task_run WHERE run_id = $each AND item_no > 0"), '95', 'each of them');

# --- links that lead away
my $elsewhere = $other->address . '/http/pages/next?count=5&size=10';
sub away { my (%more) = @_; return call({ path => '/pages/next', query => { count => 15, size => 10, elsewhere => $elsewhere }, pages => { items => '$.items', next => { json => q{$['@next']} } }, %more }) }
$run = start('away', away());
is(wait_for_run($node, $run), 'failed', 'a link to another host');
is(attempts($run), 'failed link_not_followed', 'is not followed');
is(scalar(@{ $other->ledger }), 0, 'nobody was asked there');
$run = start('allowed', away(allow_hosts => ['127.0.0.1:' . $other->port], method => 'GET'));
is(wait_for_run($node, $run), 'succeeded', 'unless the spec allows the host');
is(of_task($run, "jsonb_array_length(output->'items')"), '15', 'with what is there');
$other->add_fault(operation => 'http.pages', fault => 'status', status => 401);
$elsewhere = $other->address . '/http/json';
$run = start('echoed', call({ path => '/pages/next', query => { count => 15, size => 10, elsewhere => $elsewhere }, allow_hosts => ['127.0.0.1:' . $other->port],
	pages => { items => '$', next => { json => q{$['@next']} } } }));
is(wait_for_run($node, $run), 'failed', 'what it is not');
value("SELECT weir.create_pipeline('probe', " . literal($json->encode({ tasks => [ call({ path => '/status/202', query => { to => $elsewhere }, allow_hosts => ['127.0.0.1:' . $other->port], poll => { header => 'Location' } }) ] })) . ')');
$run = weir_trigger($node, 'probe');
is(wait_for_run($node, $run), 'succeeded', 'another host that says back what it was sent');
is(of_task($run, "concat_ws(' ', output->'body'->'headers' ? 'authorization', output->'body'->'headers' ? 'x-team', output->'body'->>'path')"), 'f f /http/json', 'was sent neither credentials nor headers');
value("SELECT weir.create_pipeline('probe_home', " . literal($json->encode({ tasks => [ call({ path => '/status/202', query => { to => '/http/json' }, poll => { header => 'Location' } }) ] })) . ')');
$run = weir_trigger($node, 'probe_home');
is(wait_for_run($node, $run), 'succeeded', 'its own host');
is(of_task($run, "concat_ws(' ', output->'body'->'headers' ? 'authorization', output->'body'->'headers'->>'x-team')"), 't lake', 'was');

# --- kill -9
sub kill_conductor { return kill9_backend($node, 'weir conductor') }
$before = $cloud->started('http.job-start');
$run = start('killed_poll', call(job({ seconds => 30 })));
$id = external($run);
kill_conductor();
is(wait_for_run($node, $run), 'succeeded', 'killed between two looks');
is(of_task($run, 'external_run_id') . ' ' . ($cloud->started('http.job-start') - $before) . ' ' . attempts($run), "$id 1 succeeded", 'the same job');
$cloud->add_fault(operation => 'http.job-start', fault => 'delay', delay_ms => 600000);
$before = $cloud->started('http.job-start');
$run = start('killed_start', call(job({ seconds => 1 }, %lookup)));
$cloud->wait(operation => 'http.job-start', fault => 'delay', started => 'true');
kill_conductor();
is(wait_for_run($node, $run), 'succeeded', 'killed before the answer');
is($cloud->started('http.job-start') - $before, 1, 'one job');
my $hold = $cloud->add_fault(operation => 'http.pages', fault => 'hold', after => 4)->{faults}[0]{id};
$run = start('killed_pages', pages('next', %{ $way{next} }));
$cloud->wait(operation => 'http.pages', fault => 'hold');
kill_conductor();
$cloud->call('DELETE', "faults/$hold");
is(wait_for_run($node, $run), 'succeeded', 'killed between two pages');
is(of_task($run, "jsonb_array_length(output->'items')"), '95', 'from the first page again');

# --- a zero is no end
$cloud->add_fault(operation => 'http.json', fault => 'not_json', body => "before\0" . 'behind it ' x 3000);
$run = start('zero', call({ path => '/json/zero' }));
is(wait_for_run($node, $run), 'succeeded', 'a body with a zero byte');
is(of_task($run, "left(output->>'body', 6) || ' ' || (length(output->>'body') - length(replace(output->>'body', 'behind it ', ''))) / 10"), 'before 3000', 'is read to its end');

is(value("SELECT count(*) FROM weir.attempt WHERE status IN ('intended', 'started')"), 0, 'no attempt is left over');
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|dapi-/, 'nothing died, and the log has no secret');
$node->stop;
done_testing();
