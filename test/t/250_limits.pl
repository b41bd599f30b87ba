# Limits and fairness: pools, limits of connections, SQL workers, priorities
# and turns; over a kill -9 as well.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('limits', conf => "weir.max_sql_workers = 8\nweir.http_timeout = '600s'\n");
my $cloud = weir_cloud(undef);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub sql { my ($name, $sql, %more) = @_; return { name => $name, kind => 'sql', spec => { sql => $sql }, %more } }
sub http { my ($name, $path, %more) = @_; return { name => $name, kind => 'http', spec => { path => $path }, %more } }
sub pipeline { my ($name, $tasks, %more) = @_; return value("SELECT weir.create_pipeline('$name', \$j\$" . $json->encode({ tasks => $tasks, max_concurrent_runs => 100, %more }) . '$j$)') }
sub why { return value("SELECT string_agg(DISTINCT waiting_for || ': ' || detail, E'\\n') FROM weir.why($_[0]) WHERE task IS NOT NULL") }
sub pool { return value("SELECT used || ' of ' || slots || ', ' || waiting || ' waiting' FROM weir.pools WHERE name = '$_[0]'") }
sub wait_pool { my ($name, $state) = @_; wait_until($node, "pool $name: $state", "SELECT used || ' of ' || slots || ', ' || waiting || ' waiting' FROM weir.pools WHERE name = '$name'", expected => $state) or die 'without that the rest means nothing'; return is(pool($name), $state, "pool $name: $state") }
sub close_gate { return value("BEGIN; SELECT pg_advisory_xact_lock($_[0]); PREPARE TRANSACTION 'gate $_[0]'") }
sub open_gate { return value("ROLLBACK PREPARED 'gate $_[0]'") }
sub gate { return "SELECT pg_advisory_xact_lock_shared($_[0])" }
sub set { my ($name, $to) = @_; value("ALTER SYSTEM SET $name = $to"); value('SELECT pg_reload_conf()'); return }

# Most slots ever taken at the same time, from the log: what is counted while it happens cannot be trusted to judge itself.
sub most_taken
{
	my ($pool, $since) = @_;
	$since //= '-infinity';
	return value(qq{
		SELECT max(n) FROM (SELECT (SELECT sum(u.pool_slots) FROM weir.attempt b JOIN weir.task_run u USING (task_run_id)
			WHERE u.pool = t.pool AND b.intended_at <= a.intended_at AND coalesce(b.ended_at, 'infinity') > a.intended_at) AS n
		FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE t.pool = '$pool' AND a.intended_at > '$since') x});
}

value("SELECT weir.create_connection('api', 'http', '$address/http'), weir.create_connection('few', 'http', '$address/http', '{}', '{\"max_concurrency\": 2}'),
	weir.create_connection('slow', 'http', '$address/http', '{}', '{\"max_starts_per_minute\": 3}')");
pipeline('other', [ sql('a', 'SELECT 1') ]);

# --- two pipelines share a pool of two slots
value("SELECT weir.create_pool('etl', 2, 'of the warehouse')");
pipeline($_, [ map { sql("t$_", gate(1), pool => 'etl') } (1 .. 4) ]) foreach ('left', 'right');
close_gate(1);
my @runs = split /\|/, value("SELECT weir.trigger('left'), weir.trigger('right')");
wait_pool('etl', '2 of 2, 6 waiting');
is(value("SELECT count(DISTINCT run_id) FROM weir.task_run WHERE status = 'running' AND pool = 'etl'"), '2', 'one task of each');
is(wait_for_run($node, weir_trigger($node, 'other')), 'succeeded', 'what uses no pool goes on');
like(why($runs[0]), qr/^pool: 2 of 2 slots of pool "etl" are taken by runs $runs[0], $runs[1] and it needs 1; task runs waiting before it: \d$/m, 'why names the pool, who holds it and how many are before');
unlike(why($runs[0]), qr/ready to start/, 'and nothing else');

# --- kill -9 with the slots held: nothing leaks, nothing is taken twice
kill9_backend($node, 'weir conductor');
wait_pool('etl', '2 of 2, 6 waiting');
kill9_backend($node, 'weir SQL worker');
wait_pool('etl', '2 of 2, 6 waiting');

# --- fewer slots: what runs is left alone
value("SELECT weir.alter_pool('etl', 1)");
is(wait_for_run($node, weir_trigger($node, 'other')), 'succeeded', 'a run in between');
wait_pool('etl', '2 of 1, 6 waiting');
open_gate(1);
is(wait_for_run($node, $_), 'succeeded', 'all tasks pass') foreach @runs;
is(most_taken('etl'), '2', 'never more than two at a time, over two crashes');
wait_pool('etl', '0 of 1, 0 waiting');
my $since = value('SELECT clock_timestamp()');
@runs = map { weir_trigger($node, $_) } ('left', 'right');
is(wait_for_run($node, $_), 'succeeded', 'and again') foreach @runs;
is(most_taken('etl', $since), '1', 'one at a time');

# --- a pool that shrank below what a task needs, and one that is stopped
value("SELECT weir.alter_pool('etl', 4)");
pipeline('wide', [ sql('a', 'SELECT 1', pool => 'etl', pool_slots => 3) ]);
value("SELECT weir.alter_pool('etl', 2)");
my $wide = weir_trigger($node, 'wide');
is(wait_for_run($node, weir_trigger($node, 'left')), 'succeeded', 'a task that needs too much stops nobody');
is(why($wide), 'pool: it needs 3 slots of pool "etl", which has 2', 'it waits, and says why');
value("SELECT weir.alter_pool('etl', 0)");
my $left = weir_trigger($node, 'left');
wait_pool('etl', '0 of 0, 5 waiting');
value("SELECT weir.alter_pool('etl', 3)");
is(wait_for_run($node, $_), 'succeeded', 'more slots: it starts at once') foreach ($wide, $left);

# --- a large task is not passed by small ones for ever
value("SELECT weir.create_pool('large', 4)");
pipeline('small', [ sql('s', gate(2), pool => 'large') ]);
pipeline('large', [ sql('l', 'SELECT 1', pool => 'large', pool_slots => 4) ]);
close_gate(2);
my @small = map { weir_trigger($node, 'small') } (1 .. 3);
wait_pool('large', '3 of 4, 0 waiting');
my $large = weir_trigger($node, 'large');
wait_for_status($node, $large, 'l', 'ready');
push @small, weir_trigger($node, 'small');
wait_for_status($node, $small[3], 's', 'ready');
is(wait_for_run($node, weir_trigger($node, 'other')), 'succeeded', 'a run in between');
wait_pool('large', '3 of 4, 2 waiting');
open_gate(2);
is(wait_for_run($node, $_), 'succeeded', 'all pass') foreach ($large, @small);
is(value("SELECT l.started_at < s.started_at FROM weir.task_run l, weir.task_run s WHERE l.run_id = $large AND s.run_id = $small[3]"), 't', 'the large one first');

# --- items of a for_each: they take the slots, their task takes none
value("SELECT weir.create_pool('items', 2)");
pipeline('each', [ { name => 'e', kind => 'for_each', pool => 'items', spec => { items => { sql => 'SELECT n FROM generate_series(1, 6) n' }, concurrency => 6, task => { kind => 'sql', spec => { sql => gate(7) } } } } ]);
close_gate(7);
my $each = weir_trigger($node, 'each');
wait_pool('items', '2 of 2, 4 waiting');
like(why($each), qr/^pool: 2 of 2 slots of pool "items" are taken by run $each and it needs 1/m, 'the first item that waits speaks for all');
open_gate(7);
is(wait_for_run($node, $each), 'succeeded', 'all items pass');
is(most_taken('items'), '2', 'two at a time');

# --- attempts that wait for an engine hold their slots; so after a kill -9
value("SELECT weir.create_pool('calls', 1)");
pipeline('calls', [ map { http("c$_", '/delay/599811', connection => 'api', pool => 'calls') } (1 .. 3) ]);
my $calls = weir_trigger($node, 'calls');
$cloud->wait(path => '/http/delay/599811');
wait_pool('calls', '1 of 1, 2 waiting');
kill9_backend($node, 'weir conductor');
wait_pool('calls', '1 of 1, 2 waiting');
value("SELECT weir.cancel($calls)");
is(wait_for_run($node, $calls), 'cancelled', 'cancelled');
wait_pool('calls', '0 of 1, 0 waiting');
is(most_taken('calls'), '1', 'one at a time');

# --- concurrency of a connection
pipeline('few', [ map { http("c$_", '/delay/599821', connection => 'few') } (1 .. 6) ]);
my $few = weir_trigger($node, 'few');
$cloud->wait(path => '/http/delay/599821', count => 2);
is(wait_for_run($node, weir_trigger($node, 'other')), 'succeeded', 'a run in between');
is(value("SELECT count(*) FROM weir.task_run WHERE run_id = $few AND status = 'running'"), '2', 'two of six attempts go on');
like(why($few), qr/^connection: 2 attempts of run $few go on through connection "few" and its max_concurrency is 2; task runs waiting before it: 0$/m, 'why names the connection');
kill9_backend($node, 'weir conductor');
wait_until($node, 'two go on again', "SELECT count(*) = 2 FROM weir.task_run WHERE run_id = $few AND status = 'running'");
is(wait_for_run($node, weir_trigger($node, 'other')), 'succeeded', 'a run in between');
is(value("SELECT count(*) FROM weir.task_run WHERE run_id = $few AND status = 'running'"), '2', 'not more, after a kill -9');
value("SELECT weir.alter_connection('few', options => '{\"max_concurrency\": 5}')");
wait_until($node, 'five go on', "SELECT count(*) = 5 FROM weir.task_run WHERE run_id = $few AND status = 'running'");
value("SELECT weir.cancel($few)");
is(wait_for_run($node, $few), 'cancelled', 'cancelled');

# --- starts per minute: the log says how many there were, and when the next may be
pipeline('slow', [ map { http("c$_", '/json/slow', connection => 'slow') } (1 .. 7) ]);
my $slow = weir_trigger($node, 'slow');
wait_until($node, 'three are done', "SELECT count(*) = 3 FROM weir.task_run WHERE run_id = $slow AND status = 'succeeded'");
kill9_backend($node, 'weir conductor');
is(wait_for_run($node, weir_trigger($node, 'other')), 'succeeded', 'a run in between');
is(scalar(@{ $cloud->ledger(path => '/http/json/slow') }), 3, 'three of seven, over a kill -9');
like(why($slow), qr/^connection: 3 attempts were started through connection "slow" within a minute and its max_starts_per_minute is 3; the next one starts at .*; task runs waiting before it: 0$/m, 'why says when');
# A minute is long: let it have begun 58 seconds earlier.  The rest the timer must do.
value("UPDATE weir.attempt SET intended_at = intended_at - interval '58 seconds' WHERE rated_connection = 'slow'; SELECT weir.alter_connection('slow')");
wait_until($node, 'three more are done', "SELECT count(*) = 6 FROM weir.task_run WHERE run_id = $slow AND status = 'succeeded'");
is(value("SELECT count(*) FROM weir.task_run WHERE run_id = $slow AND status = 'ready'"), '1', 'the last one waits again');
value("UPDATE weir.attempt SET intended_at = intended_at - interval '60 seconds' WHERE rated_connection = 'slow'; SELECT weir.alter_connection('slow')");
is(wait_for_run($node, $slow), 'succeeded', 'all seven');
is(value("SELECT count(*) FROM weir.attempt WHERE run_id = $slow"), '7', 'one attempt each');

# --- one SQL worker: runs take turns, whatever one of them has ready
set('weir.max_sql_workers', 1);
pipeline('flood', [ map { sql("f$_", 'SELECT pg_sleep(0.002)') } (1 .. 1000) ]);
pipeline('trickle', [ map { sql("t$_", 'SELECT pg_sleep(0.002)') } (1 .. 20) ]);
my $flood = weir_trigger($node, 'flood');
wait_until($node, 'the flood runs', "SELECT count(*) > 3 FROM weir.task_run WHERE run_id = $flood AND status = 'succeeded'");
my $trickle = weir_trigger($node, 'trickle');
is(wait_for_run($node, $trickle), 'succeeded', 'twenty tasks beside a thousand');
cmp_ok(value(qq{SELECT count(*) FROM weir.task_run f, (SELECT min(ready_at) AS a, max(started_at) AS b FROM weir.task_run WHERE run_id = $trickle) t
	WHERE f.run_id = $flood AND f.started_at BETWEEN t.a AND t.b}), '<=', 25, 'task for task');
is(value("SELECT status FROM weir.run WHERE run_id = $flood"), 'running', 'the flood goes on meanwhile');
value("SELECT weir.cancel($flood)");
is(wait_for_run($node, $flood), 'cancelled', 'cancelled');

# --- priorities of task and run add up
close_gate(3);
pipeline('holds', [ sql('h', gate(3)) ]);
pipeline('ranked', [ sql('low', 'SELECT 1', priority => -5), sql('plain', 'SELECT 1'), sql('high', 'SELECT 1', priority => 5) ]);
my $holds = weir_trigger($node, 'holds');
wait_until($node, 'the worker is held', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
my $ranked = weir_trigger($node, 'ranked');
my $above = value("SELECT weir.trigger('ranked', priority => 7)");
wait_until($node, 'all are ready', "SELECT count(*) = 6 FROM weir.task_run WHERE run_id IN ($ranked, $above) AND status = 'ready'");
like(why($ranked), qr/^SQL worker: all 1 SQL workers have a task of run $holds; task runs waiting before it: 5$/m, 'why names the SQL workers');
open_gate(3);
is(wait_for_run($node, $_), 'succeeded', 'all pass') foreach ($holds, $ranked, $above);
is(value("SELECT string_agg(priority || ' ' || task_name, ', ' ORDER BY started_at) FROM weir.task_run WHERE run_id IN ($ranked, $above)"),
	'12 high, 7 plain, 5 high, 2 low, 0 plain, -5 low', 'the highest sum first');

# --- and go down to what a run calls, within what a priority may be
pipeline('ranked_below', [ sql('c', 'SELECT 1', priority => 1) ], priority => 3);
pipeline('ranked_above', [ map { { name => $_->[0], kind => 'pipeline', priority => $_->[1], spec => { pipeline => 'ranked_below' } } } ([ same => 0 ], [ high => 10 ], [ low => -900 ]) ]);
foreach my $case ([ 7, '11 same, 21 high, -889 low' ], [ 995, '999 same, 1001 high, 99 low' ], [ -500, '-496 same, -486 high, -999 low' ])
{
	my ($priority, $expected) = @$case;
	my $calls = value("SELECT weir.trigger('ranked_above', priority => $priority)");
	is(wait_for_run($node, $calls), 'succeeded', 'all that is called passes');
	is(value("SELECT string_agg(c.priority || ' ' || t.task_name, ', ' ORDER BY t.task_no) FROM weir.task_run t JOIN weir.run r ON r.parent_task_run_id = t.task_run_id "
		. "JOIN weir.task_run c ON c.run_id = r.run_id WHERE t.run_id = $calls"), $expected, "what a run of priority $priority calls");
}

# --- what has waited too long goes before priorities, the longest waiting first
close_gate(9);
pipeline('holds_long', [ sql('h', gate(9)) ]);
my $holds_long = weir_trigger($node, 'holds_long');
wait_until($node, 'the worker is held for long', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
my $patient = value("SELECT weir.trigger('other', priority => -9)");
wait_for_status($node, $patient, 'a', 'ready');
my $patient_too = value("SELECT weir.trigger('other', priority => -8)");
wait_for_status($node, $patient_too, 'a', 'ready');
set('weir.overdue_after', 1);
wait_until($node, 'both are overdue', "SELECT bool_and(ready_at < clock_timestamp() - interval '1 second') FROM weir.task_run WHERE run_id IN ($patient, $patient_too)");
value("SELECT weir.create_pool('elsewhere', 9)");
pipeline('elsewhere', [ sql('a', 'SELECT 1', pool => 'elsewhere') ]);
my ($urgent_elsewhere, $urgent) = map { value("SELECT weir.trigger($_)") } ("'elsewhere', priority => 10", "'other', priority => 9");
wait_for_status($node, $_, 'a', 'ready') foreach ($urgent_elsewhere, $urgent);
like(why($patient), qr/task runs waiting before it: 0$/m, 'nothing goes before the one that has waited longest');
like(why($patient_too), qr/task runs waiting before it: 1$/m, 'and that goes before the next');
open_gate(9);
is(wait_for_run($node, $_), 'succeeded', 'all pass') foreach ($holds_long, $patient, $patient_too, $urgent_elsewhere, $urgent);
is(value("SELECT string_agg(run_id::text, ' ' ORDER BY started_at) FROM weir.task_run WHERE run_id IN ($patient, $patient_too, $urgent_elsewhere, $urgent)"),
	"$patient $patient_too $urgent_elsewhere $urgent", 'the overdue in the order they became ready, whatever the others need');
close_gate(9);
pipeline('single', [ sql('s', gate(9)) ], max_concurrent_runs => 1);
my $goes_on = weir_trigger($node, 'single');
wait_for_status($node, $goes_on, 's', 'running');
my ($waits_long, $waits_longer) = map { value("SELECT weir.trigger('single', priority => $_)") } (-1, -2);
wait_until($node, 'both runs are overdue', "SELECT bool_and(queued_at < clock_timestamp() - interval '1 second') FROM weir.run WHERE run_id IN ($waits_long, $waits_longer)");
my $hurries = value("SELECT weir.trigger('single', priority => 5)");
is(value("SELECT string_agg(status, ' ' ORDER BY run_id) FROM weir.run WHERE pipeline_name = 'single'"), 'running queued queued queued', 'one run at a time');
open_gate(9);
is(wait_for_run($node, $_), 'succeeded', 'all runs pass') foreach ($goes_on, $waits_long, $waits_longer, $hurries);
is(value("SELECT string_agg(run_id::text, ' ' ORDER BY started_at) FROM weir.run WHERE pipeline_name = 'single'"),
	"$goes_on $waits_long $waits_longer $hurries", 'so do runs of a pipeline');
value('ALTER SYSTEM RESET weir.overdue_after');
value('SELECT pg_reload_conf()');

# --- what needs different things takes turns; in a run, what became ready first goes first
value("SELECT weir.create_pool('$_', 9)") foreach ('red', 'blue');
pipeline('colours', [ map { (sql("red$_", 'SELECT 1', pool => 'red'), sql("blue$_", 'SELECT 1', pool => 'blue')) } (1 .. 3) ]);
pipeline('in_order', [ map { ({ name => "w$_", kind => 'wait', spec => { approval => 'now?' } }, sql("t$_", 'SELECT 1', depends_on => ["w$_"])) } (1 .. 4) ]);
close_gate(8);
pipeline('holds_too', [ sql('h', gate(8)) ]);
my $holds_too = weir_trigger($node, 'holds_too');
wait_until($node, 'the worker is held again', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
my $colours = weir_trigger($node, 'colours');
wait_until($node, 'all colours are ready', "SELECT count(*) = 6 FROM weir.task_run WHERE run_id = $colours AND status = 'ready'");
my $in_order = weir_trigger($node, 'in_order');
foreach my $no (3, 1, 4, 2)
{
	wait_until($node, "w$no waits", "SELECT count(*) = 1 FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE a.run_id = $in_order AND t.task_name = 'w$no' AND a.kind_state->>'wait' = 'approval'");
	value("SELECT weir.approve($in_order, 'w$no')");
	wait_for_status($node, $in_order, "t$no", 'ready');
}
open_gate(8);
is(wait_for_run($node, $_), 'succeeded', 'all pass') foreach ($holds_too, $colours, $in_order);
sub started { return value("SELECT string_agg($_[1], ' ' ORDER BY started_at) FROM weir.task_run WHERE run_id = $_[0] AND kind = 'sql'") }
like(started($colours, "regexp_replace(task_name, '.\$', '')"), qr/^(red blue red blue red blue|blue red blue red blue red)$/, 'the colours take turns');
is(started($in_order, 'task_name'), 't3 t1 t4 t2', 'the order in which they became ready');

# --- more SQL workers by a reload
close_gate(4);
pipeline('many', [ map { sql("m$_", gate(4)) } (1 .. 3) ]);
my $many = weir_trigger($node, 'many');
wait_until($node, 'one of them runs', "SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
set('weir.max_sql_workers', 3);
wait_until($node, 'all of them run', "SELECT count(*) = 3 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
open_gate(4);
is(wait_for_run($node, $many), 'succeeded', 'more workers by a reload');

# --- tasks that a failure of their run has blocked cost it no turns
value("SELECT weir.create_pool('turn', 1)");
pipeline('fails', [ sql('f', gate(11) . '; SELECT 1 / 0', pool => 'turn'), (map { sql("b$_", 'SELECT 1', pool => 'turn') } (1 .. 8)), sql('h', 'SELECT 1', pool => 'turn', run_if => 'always') ],
	on_failure => 'fail_fast');
pipeline('steady', [ map { sql("t$_", 'SELECT 1', pool => 'turn') } (1 .. 12) ]);
close_gate(11);
my $fails = weir_trigger($node, 'fails');
wait_for_status($node, $fails, 'f', 'running');
my $steady = weir_trigger($node, 'steady');
wait_pool('turn', '1 of 1, 21 waiting');
open_gate(11);
is(wait_for_run($node, $fails), 'failed', 'a run fails fast');
is(wait_for_run($node, $steady), 'succeeded', 'another one goes on');
is(value("SELECT string_agg(status, ' ' ORDER BY task_no) FROM weir.task_run WHERE run_id = $fails"), 'failed ' . 'blocked ' x 8 . 'succeeded', 'what handles the failure runs');
cmp_ok(value("SELECT count(*) FROM weir.task_run s JOIN weir.task_run h ON h.run_id = $fails AND h.task_name = 'h' WHERE s.run_id = $steady AND s.started_at < h.started_at"), '<=', 2, 'in its turn');

# --- runs take turns also where one of a higher priority has the slot every other time
value(q{SELECT weir.create_pool('narrow', 1);
	CREATE FUNCTION public.until_urgent() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		WHILE EXISTS (SELECT FROM weir.run WHERE pipeline_name = 'urgent' AND status = 'running')
			AND NOT EXISTS (SELECT FROM weir.task_run WHERE pool = 'narrow' AND status = 'ready' AND priority = 5) LOOP
			PERFORM pg_sleep(0.002);
		END LOOP;
	END$$;
	CREATE FUNCTION public.until_patient() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		WHILE EXISTS (SELECT FROM weir.task_run WHERE pool = 'narrow' AND status = 'ready')
			AND NOT EXISTS (SELECT FROM weir.task_run WHERE pool = 'narrow' AND status = 'running') LOOP
			PERFORM pg_sleep(0.002);
		END LOOP;
	END$$});
pipeline('holds_narrow', [ sql('h', gate(6), pool => 'narrow') ]);
pipeline('patient', [ map { sql("p$_", 'SELECT public.until_urgent()', pool => 'narrow') } (1 .. 3) ]);
pipeline('urgent', [ map { (sql("u$_", 'SELECT 1', pool => 'narrow', priority => 5, ($_ > 1 ? (depends_on => [ 'g' . ($_ - 1) ]) : ())),
	sql("g$_", 'SELECT public.until_patient()', depends_on => ["u$_"])) } (1 .. 6) ]);
close_gate(6);
my $holds_narrow = weir_trigger($node, 'holds_narrow');
wait_for_status($node, $holds_narrow, 'h', 'running');
my @patient = map { weir_trigger($node, 'patient') } (1, 2);
my $urgent_run = weir_trigger($node, 'urgent');
wait_pool('narrow', '1 of 1, 7 waiting');
open_gate(6);
is(wait_for_run($node, $_), 'succeeded', 'all pass') foreach ($holds_narrow, $urgent_run, @patient);
is(value("SELECT string_agg(run_id::text, ' ' ORDER BY started_at) FROM weir.task_run WHERE pool = 'narrow' AND task_name <> 'h'"),
	join(' ', map { ($urgent_run, $patient[ $_ % 2 ]) } (0 .. 5)), 'what is urgent takes nobody\'s turn');

# --- ten thousand wait for a full pool: others do not notice
value("SELECT weir.create_pool('full', 1)");
pipeline('crowd', [ sql('first', gate(5), pool => 'full', priority => 1), map { sql("c$_", 'SELECT 1', pool => 'full') } (2 .. 10000) ]);
close_gate(5);
my $crowd = weir_trigger($node, 'crowd');
wait_pool('full', '1 of 1, 9999 waiting');
my @others = map { value("SELECT weir.trigger('other') AS run \\gset\nSELECT weir.wait(:run)") } (1 .. 30);
is(join(' ', @others), join(' ', ('succeeded') x 30), 'runs beside them');
my $latency = value(q{SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM t.started_at - r.queued_at) * 1000)
	FROM (SELECT run_id, queued_at FROM weir.run WHERE pipeline_name = 'other' ORDER BY run_id DESC LIMIT 30) r JOIN weir.task_run t USING (run_id)});
note(sprintf('%.1f ms from trigger to start', $latency));
cmp_ok($latency, '<', 100, 'start without delay');
value("SELECT weir.cancel($crowd)");
open_gate(5);
wait_for_run($node, $crowd);
unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6/, 'nothing died of itself');
$node->stop;

# --- not enough processes: SQL tasks wait for one and say so, once in the log
$node = weir_node('processes', conf => "max_worker_processes = 4\nweir.max_sql_workers = 10\nweir.reserved_worker_processes = 0\n");
pipeline('gated', [ map { sql("g$_", gate(6)) } (1 .. 6) ]);
close_gate(6);
my $gated = weir_trigger($node, 'gated');
wait_until($node, 'some wait for a process', "SELECT count(*) > 0 FROM weir.why($gated) WHERE detail LIKE 'no SQL worker can be started since %: all max_worker_processes (4) are taken%'");
wait_until($node, 'one runs', "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted");
# Wait until it has been tried several times.
open_gate(6);
is(wait_for_run($node, $gated), 'succeeded', 'they get their turn');
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
like($log, qr/LOG:  weir runs at most 2 SQL workers, not weir\.max_sql_workers \(10\)/, 'a word at the start');
is(scalar(() = $log =~ /weir could not start a SQL worker/g), 1, 'one line for all of it');
set('max_parallel_workers', 2);
is(value("SELECT count(*) FROM weir.attempt WHERE status <> 'succeeded'"), '0', 'no attempt failed for it');
$node->stop;
done_testing();
