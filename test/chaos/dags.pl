# dags.pl - the second part of "make soak": random pipelines, started, stopped
# and repaired at random while the cloud misbehaves and something dies.  When
# all is quiet again Judge.pm says whether everything happened that should
# have, once, and nothing else.
#
#   CYCLES=N    so many cycles (200)
#   SEED=N      the seed of the first cycle, the next has the next; a cycle
#               that fails says its own, and SEED=that CYCLES=1 makes the same
#               choices again (what dies may still find weir at another place)
#   MINUTES=N   no cycle begins after so many minutes (60)
#   THEME=NAME  every cycle is about this, see Dags.pm
#   ONLY=NAME   always this act of violence, see %violence
#   GO_ON=1     do not stop at the first cycle that fails
#
# The cloud is outside of what crashes.  One node serves all cycles, until a
# standby takes its place.

use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use HTTP::Tiny;
use JSON::PP;
use lib dirname(__FILE__);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use Dags;
use Judge;
use WeirTest;

my $cycles = $ENV{CYCLES} || 200;
my $seed = $ENV{SEED} || int(rand(1_000_000)) + 1;
my $limit = 60 * ($ENV{MINUTES} || 60);
my $json = JSON::PP->new->canonical;
my $node_no = 1;
my %done;						# acts of violence, how often
my %seen;						# and what was judged

note("SEED=$seed CYCLES=$cycles");
my $node = weir_node("dags$node_no", allows_streaming => 1, conf => qq{
log_min_messages = warning
deadlock_timeout = 1s
weir.cancel_grace = '2s'
weir.max_sql_workers = 4
weir.sql_worker_idle_timeout = '2s'
weir.http_timeout = '10s'
});
my $cloud = weir_cloud(undef, speed => 50);
my $address = $cloud->address;
value(qq{
	SELECT weir.create_secret('dbx_token', 'dapi-local'), weir.create_secret('entra_secret', 'weir-secret');
	SELECT weir.create_connection('chaos_http', 'http', '$address/http');
	SELECT weir.create_connection('chaos_queue', 'http', '$address/queue');
	SELECT weir.create_connection('chaos_dbx', 'databricks', '$address/dbx', '{"type": "pat", "token": "dbx_token"}',
		'{"settle_seconds": 0.5, "max_concurrency": $connections{chaos_dbx}}');
	SELECT weir.create_connection('chaos_adf', 'adf', '$address/adf', '{"type": "entra_client_secret", "tenant_id": "local",
		"client_id": "weir-client", "client_secret": "entra_secret", "authority": "$address"}',
		'{"subscription_id": "s1", "resource_group": "rg-dev", "factory": "adf-dev", "settle_seconds": 0.5, "max_concurrency": $connections{chaos_adf}}')});
value("SELECT weir.create_pool('$_', $pools{$_})") foreach sort keys %pools;
value(PostgreSQL::Test::Utils::slurp_file(dirname(__FILE__) . "/$_.sql")) foreach ('hands', 'journal');
$cloud->config(history_delay_ms => 50);

sub value { return $node->safe_psql('postgres', $_[0]); }

# Statements that may be refused or cut short, from a process of its own.
sub client
{
	my ($sql) = @_;
	my $pid = fork() // die "fork: $!";

	return $pid if $pid;
	open(STDOUT, '>', '/dev/null');
	open(STDERR, '>', '/dev/null');
	exec('psql', '-X', '-q', '-d', $node->connstr('postgres'), map { ('-c', $_) } @$sql) or exit 127;
}

# --- what is asked for ------------------------------------------------------------

sub quoted { return "'" . ($_[0] =~ s/'/''/gr) . "'"; }

# One transaction; the run is in public.asked if and only if it was committed.
sub start_of_run
{
	my ($pipeline) = @_;
	my $tasks = $pipeline->{tasks};
	my $few = $theme eq 'landings';
	my %params = (n => int(rand($few ? 3 : 10)), region => $few ? 'north' : one_of('north', 'south', 'west'), (!$few && chance(0.2) ? (list => weighted(random_list(int(rand(6))) => 5, 7 => 1)) : ()));
	my $params = quoted($json->encode(\%params))
	  . weighted('' => $few ? 20 : 1, '::jsonb || jsonb_build_object(\'at\', clock_timestamp() + interval \'' . sprintf('%.2f', rand(0.8)) . ' s\')' => 1);
	my $selector = one_of('%s', '+%s', '%s+', '+%s+');
	my $call = "weir.trigger('$pipeline->{name}', $params, priority => " . ($theme eq 'crowd' ? weighted(0 => 3, 1 => 1) : int(rand(5)))
	  . (chance($few ? 0.05 : 0.15) ? ", tasks => '{" . sprintf($selector, one_of(@$tasks)->{name}) . "}'" : '') . ')';

	return weighted(
		"INSERT INTO public.asked VALUES ($call, 'trigger')" => 12,
		"BEGIN; SELECT $call; ROLLBACK" => 2,
		"BEGIN; SAVEPOINT s; SELECT $call; ROLLBACK TO s; INSERT INTO public.asked VALUES ($call, 'after savepoint'); COMMIT" => 1,
		"BEGIN; INSERT INTO public.asked VALUES ($call, 'prepared'); PREPARE TRANSACTION 'chaos'" => 0.5,	# refused
		"WITH b AS MATERIALIZED (SELECT weir.backfill('$pipeline->{name}', '2026-01-01', '2026-01-04', '1 day', $params, concurrency => 2) AS id) "
		  . "SELECT id FROM b \\gset\nINSERT INTO public.asked SELECT run_id, 'backfill' FROM weir.run WHERE backfill_id = :id" => 0.5);
}

# Something about a run that exists, whoever asked for it, or about what it
# depends on: statements of one client, one after the other.
sub about_a_run
{
	my ($after, $pipelines) = @_;
	my @statements = one_statement($after, $pipelines);

	return @statements unless chance($theme eq 'crowd' ? 0.03 : 0.15);
	return ('BEGIN', @statements, 'SELECT pg_sleep(' . sprintf('%.2f', rand(0.4)) . ')', chance(0.6) ? 'COMMIT' : 'ROLLBACK');
}

sub one_statement
{
	my ($after, $pipelines) = @_;
	my $pipeline = one_of(@$pipelines);
	my $k = int(rand(1000));
	my $run = "(SELECT run_id FROM (SELECT run_id, row_number() OVER (ORDER BY run_id) AS i, count(*) OVER () AS n "
	  . "FROM weir.run WHERE run_id > $after) r WHERE i = $k % n + 1)";
	my $task = one_of(@{ $pipeline->{tasks} })->{name};
	my $landings = $theme eq 'landings';
	my $params = $landings ? ", '{\"n\": " . int(rand(3)) . ", \"region\": \"north\"}'" : '';

	return weighted(
		"SELECT weir.cancel($run)" => 4,
		"SELECT weir.repair($run)" => 4,
		"SELECT weir.repair(last_run_id) FROM weir.pipelines WHERE name = '$pipeline->{name}'" => $landings ? 12 : 1,
		"SELECT weir.repair($run, tasks => '{$task}')" => 1,
		"SELECT weir.repair($run, tasks => '{$task}', downstream => true)" => 1,
		"SELECT weir.rerun_from($run, '$task')" => 2,
		"INSERT INTO public.asked VALUES (weir.restart($run), 'restart')" => $landings ? 15 : 2,
		"SELECT public.answer_all()" => 3,
		"SELECT public.decide_all()" => 2,
		"SELECT public.adopt($after)" => $theme eq 'unknown' ? 12 : 2,
		"SELECT public.prune(" . one_of(1, 3, 1000) . ')' => 2,
		"SELECT weir.skip_once('$pipeline->{name}', true)" => 1.7,
		"SELECT weir.set_pipeline_enabled('$pipeline->{name}', false)" => 2.5,
		"SELECT public.send('files', NULL)" => 1,
		"SELECT public.send(one_of.name, $run) FROM (SELECT '" . one_of('files', 'of t1', 'of t2', 'of t3[1]') . "') AS one_of (name)" => 1,
		"SELECT weir.alter_pool('chaos_four', " . one_of(3, 5) . ')' => 0.7,
		"INSERT INTO public.asked VALUES (weir.trigger('$pipeline->{name}'$params), 'trigger')" => $landings ? 20 : 1,
		"SELECT weir.alter_pipeline('$pipeline->{name}', " . quoted($pipeline->{json}) . ')' => 0.7,
		"SELECT weir.pause_pipeline('$pipeline->{name}')" => 0.7);
}

# --- the cloud --------------------------------------------------------------------

# A held or late createRun, or statement, would begin after it was looked for
# in vain and sent again: that is what settle_seconds is to be long enough for.
sub misbehave
{
	my $unknown = $theme eq 'unknown';

	foreach (1 .. ($unknown ? 6 : weighted(0 => 3, 1 => 3, 2 => 2, 4 => 1)))
	{
		my $operation = weighted('adf.createRun' => 3, 'adf.getRun' => 1, 'adf.queryRuns' => 1, 'adf.cancel' => 1, 'adf.queryActivityRuns' => 1,
			'databricks.run-now' => 3, 'databricks.get' => 2, 'databricks.repair' => 1, 'databricks.cancel' => 1, 'databricks.get-output' => 1,
			'databricks.submit' => 2, 'databricks.execute' => 4, 'databricks.statement' => 1, 'databricks.history' => 1, 'databricks.invoke' => 4,
			'http.json' => 6, 'http.delay' => 1, 'http.job-start' => 3, 'http.job-get' => 1, 'queue.get' => 1, 'queue.delete' => 1, 'entra.token' => 1);
		my %fault = weighted(
			[ fault => 'status', status => 429, retry_after => int(rand(2)) ] => 2,
			[ fault => 'status', status => one_of(500, 502, 503) ] => 3,
			[ fault => 'reset_before' ] => 3,
			[ fault => 'reset_after' ] => 5,
			[ fault => 'half_body' ] => 3,
			[ fault => 'not_json' ] => 1,
			[ fault => 'html' ] => 1,
			[ fault => 'delay', delay_ms => 50 + int(rand(500)) ] => 3,
			($operation =~ /createRun|execute/ ? () : ([ fault => 'hold' ] => 3)),
			[ fault => 'task_fails', job_id => 102 ] => 2,
			[ fault => 'copy_fails' ] => 1)->@*;

		if ($unknown && chance(0.8))
		{
			$operation = weighted('http.json' => 3, 'databricks.invoke' => 2, 'databricks.execute' => 2);
			%fault = (fault => weighted(reset_before => 2, reset_after => 3, half_body => 1));
		}
		$fault{operation} = $operation unless $fault{fault} =~ /_fails$/;
		$cloud->add_fault(%fault, times => one_of(1, 1, 2, 3), after => weighted(0 => 3, 1 => 1));
	}
	return;
}

# What somebody starts in the engine, for weir.adopt.
sub by_hand
{
	my $http = HTTP::Tiny->new(timeout => 30);

	foreach my $n (1 .. weighted(0 => 2, 1 => 1, 3 => 1))
	{
		my ($kind, $path, $id, $body) = chance(0.6)
		  ? ('databricks_job', '2.2/jobs/run-now', 'run_id', { job_id => one_of(102, 102, 103), idempotency_token => "by hand $n" })
		  : ('databricks_sql', '2.0/sql/statements', 'statement_id', { warehouse_id => 'wh1', statement => 'SELECT 1 AS n', wait_timeout => '0s',
			query_tags => [ { key => 'weir_token', value => "by hand $n" } ] });
		my $answer = $http->post("$address/dbx/api/$path", { headers => { 'Authorization' => 'Bearer dapi-local', 'Content-Type' => 'application/json' },
			content => $json->encode($body) });

		die "$path: $answer->{status} $answer->{content}" unless $answer->{success};
		value("INSERT INTO public.by_hand VALUES ('" . decode_json($answer->{content})->{$id} . "', '$kind')");
	}
	return;
}

# --- violence -----------------------------------------------------------------------

sub log_now { return -s $node->logfile; }

sub pids_of
{
	my ($type) = @_;
	return split /\n/, value("SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' AND pid <> pg_backend_pid() ORDER BY pid");
}

# A process that had ended by itself, and was only not yet buried, is no crash:
# the postmaster buries before it takes the next connection.
sub crash
{
	my ($type) = @_;
	my @pids = pids_of($type) or return 0;
	my $pid = one_of(@pids);
	my $log = log_now();

	return 0 unless kill('KILL', $pid) == 1;
	while (kill(0, $pid)) { sleep(0.005); }
	waitpid(client([ 'SELECT 1' ]), 0);
	return 0 unless substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $log) =~ /\(PID $pid\) was terminated by signal 9/;
	wait_for_restart($node, $log);
	return 1;
}

sub terminate
{
	my ($type) = @_;
	my @pids = pids_of($type) or return 0;

	value('SELECT pg_terminate_backend(' . one_of(@pids) . ')');
	return 1;
}

# The next conductor dies as well, while it finds out how things are.
sub crash_twice
{
	crash('weir conductor') or return 0;
	wait_until($node, 'another conductor', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'weir conductor'");
	return crash('weir conductor');
}

# Until its processes are gone the server does not start.
sub kill_postmaster
{
	my @pids = split /\n/, value('SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()');

	$node->kill9;
	while (grep { kill(0, $_) } @pids) { sleep(0.01); }
	unlink $node->data_dir . '/postmaster.pid';
	$node->start;
	return 1;
}

# The primary stops as it is, the standby goes on.  It is synchronous: what
# was committed, intents above all, is there.
my $standby;
sub prepare_standby
{
	my $key = $node->basedir . '/weir.key';

	$node->backup('chaos');
	$standby = PostgreSQL::Test::Cluster->new('dags' . ++$node_no);
	$standby->init_from_backup($node, 'chaos', has_streaming => 1);
	PostgreSQL::Test::Utils::system_or_bail('rm', '-rf', $node->backup_dir . '/chaos');
	$standby->start;
	value("ALTER SYSTEM SET synchronous_standby_names = '*'");
	value('SELECT pg_reload_conf()');
	wait_until($node, 'the standby is synchronous', "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'");
	return;
}

sub promote
{
	my $old = $node;

	$old->stop('immediate');
	$standby->promote;
	$node = $standby;
	$standby = undef;
	wait_until($node, 'the standby is primary', 'SELECT NOT pg_is_in_recovery()');
	return 1;
}

my %violence = (
	nothing => [ 4, sub { return 1; } ],
	conductor => [ 3, sub { return crash('weir conductor'); } ],
	conductor_twice => [ 1, \&crash_twice ],
	launcher => [ 1, sub { return crash('weir launcher'); } ],
	worker => [ 2, sub { return crash('weir SQL worker'); } ],
	backend => [ 1, sub { return crash('client backend'); } ],
	postmaster => [ 1, \&kill_postmaster ],
	immediate => [ 1, sub { $node->stop('immediate'); $node->start; return 1; } ],
	restart => [ 0.5, sub { $node->restart; return 1; } ],
	terminate_conductor => [ 1, sub { return terminate('weir conductor'); } ],
	terminate_worker => [ 2, sub { return terminate('weir SQL worker'); } ],
	promote => [ 0.3, \&promote ]);

# Now and then what is seldom chosen has its turn, so that a hundred cycles have all of it.
sub choose_violence
{
	my ($turn) = @_;
	my $due = { 7 => 'promote', 17 => 'immediate', 27 => 'postmaster', 37 => 'backend', 47 => 'restart' }->{ $turn % 50 };
	my $chosen = $ENV{ONLY} || $due || weighted(map { $_ => $violence{$_}[0] } sort keys %violence);

	die "no such violence: $chosen" unless $violence{$chosen};
	return $chosen;
}

# --- a cycle ------------------------------------------------------------------------

# As long as something goes on it only takes its time.
sub wait_until_quiet
{
	my $before;

	foreach (1 .. 6)
	{
		my $n = value('SELECT count(*) FROM public.journal');

		last if defined $before && $n == $before;
		$before = $n;
		$node->psql('postgres', "CALL public.wait_until_quiet(60)");
		last if value('SELECT public.is_quiet()') eq 't';
	}
	return value('SELECT public.is_quiet()') eq 't' && wait_until($node, 'the SQL workers are those of their slots', 'SELECT public.slots_agree()');
}

# Statements of clients while something dies, and then until all is quiet.
sub round
{
	my ($violence, $statements) = @_;
	my @clients = map { client($_) } @$statements;

	sleep(rand(weighted(0.1 => 1, 0.5 => 2, 1 => 1)));
	my $happened = $violence{$violence}[1]->();
	$done{$violence}++ if $happened;
	sleep(rand(0.3));
	$cloud->clear_faults;
	waitpid($_, 0) foreach @clients;
	return wait_until_quiet();
}

sub cycle
{
	my ($cycle_seed) = @_;

	srand($cycle_seed);
	my $after = value('SELECT coalesce(max(run_id), 0) FROM weir.run');
	my $name = "c${cycle_seed}_$after";
	$theme = weighted('' => 4, unknown => 1, landings => 1, crowd => 1);
	$theme = $ENV{THEME} if $ENV{THEME};
	my @pipelines;
	push @pipelines, random_pipeline("${name}_" . (@pipelines + 1), @pipelines) foreach 1 .. weighted(1 => 2, 2 => 2, 3 => $theme =~ /landings|crowd/ ? 0 : 2);
	my $violence = choose_violence($cycle_seed);
	my $overdue_after = $theme eq 'crowd' && chance(0.4) ? one_of(1, 2) : 0;
	my @first = map { start_of_run(one_of(@pipelines)) } 1 .. ($theme eq 'crowd' ? one_of(10, 15, 20) : weighted(1 => $theme eq 'landings' ? 0 : 1, 2 => 2, 4 => 2, 8 => $theme ? 4 : 1));
	my @later = map { [ 'SELECT pg_sleep(' . sprintf('%.2f', rand(0.6)) . ')', about_a_run($after, \@pipelines) ] } 1 .. int(rand(7));
	push @later, [ 'SELECT pg_sleep(' . sprintf('%.2f', rand(0.6)) . ')', split /\n/, start_of_run($pipelines[0]) ] if chance(0.3);
	# They are there late, and their numbers are those of long ago.
	push @later, [ 'BEGIN', "INSERT INTO public.asked VALUES (weir.trigger('" . one_of(@pipelines)->{name} . "', priority => " . int(rand(3)) . "), 'late')",
		'SELECT pg_sleep(' . sprintf('%.2f', rand(2)) . ')', chance(0.8) ? 'COMMIT' : 'ROLLBACK' ] foreach 1 .. weighted(0 => 3, 1 => 2, 3 => 1);
	@later = grep { "@$_" !~ /gset|SAVEPOINT|PREPARE/ } @later;	# one statement for each -c
	my $again = chance({ unknown => 0.8, landings => 1 }->{$theme} // 0.5) ? choose_violence(0) : undef;
	my @again = map { [ about_a_run($after, \@pipelines) ] } 1 .. ($theme ? 8 : 4);
	my @rounds = $again ? [ $again eq 'promote' ? 'nothing' : $again, \@again ] : ();

	# Landings are resumed, some of them for good, and then again.
	push @rounds, [ 'nothing', [ map { [ about_a_run($after, \@pipelines) ] } 1 .. 6 ] ] if $theme eq 'landings';
	value("ALTER SYSTEM SET weir.overdue_after = $overdue_after") if $overdue_after;
	value('SELECT pg_reload_conf()') if $overdue_after;
	prepare_standby() if $violence eq 'promote';
	$cloud->call('POST', 'queues', { queue => 'chaos', create => JSON::PP::true });
	by_hand();
	value(join "\n", map { "SELECT weir.create_pipeline('$_->{name}', " . quoted($_->{json}) . ');' } @pipelines);
	my $log = log_now();
	misbehave();
	$node->psql('postgres', join("\n", map { "$_;" } @first), on_error_stop => 0);
	my $quiet = round($violence, \@later);
	foreach my $next (@rounds)
	{
		last unless $quiet;
		$log = 0 if $violence eq 'promote';
		misbehave();
		$quiet = round(@$next);
	}
	value('SELECT public.prune(100000)') if $quiet;
	my $facts = decode_json(value("SELECT public.facts($after)"));
	my $judge = Judge->new(facts => $facts, pipelines => { map { $_->{name} => $_ } @pipelines }, ledger => $cloud->ledger, overdue_after => $overdue_after);
	my @wrong = $judge->verdict;
	$seen{$_} += $judge->seen->{$_} foreach keys %{ $judge->seen };
	push @wrong, 'it did not become quiet: ' . value("SELECT string_agg(w.run_id || ' ' || concat_ws(' ', w.task, w.waiting_for, w.detail), '; ')
		FROM weir.run r, weir.why(r.run_id) w WHERE r.run_id > $after AND w.waiting_for <> 'nothing'") unless $quiet;
	push @wrong, "log: $1" while substr(PostgreSQL::Test::Utils::slurp_file($node->logfile), $violence eq 'promote' ? 0 : $log)
	  =~ /^(.*(?:PANIC|illegal|signal 11|signal 6|deadlock detected|TRAP:).*)$/mg;

	$violence = "$theme: $violence" if $theme;
	my $did = join(', ', $violence, map { $_->[0] } @rounds);
	note(join ', ', map { "$_ " . ($judge->seen->{$_} // 0) } 'ended P', 'ended D', 'ended R', 'landings resumed', 'landings beside') if $ENV{THEME};
	ok(!@wrong, "SEED=$cycle_seed: $did, " . keys(%{ $facts->{asked} }) . ' runs, ' . @{ $facts->{attempts} } . ' attempts') or do {
		diag($_) foreach splice(@wrong, 0, 20);
		diag("pipeline $_->{name}: $_->{json}") foreach @pipelines;
		open(my $file, '>', "$PostgreSQL::Test::Utils::tmp_check/cycle_$cycle_seed.json") or die $!;
		print $file JSON::PP->new->canonical->pretty->encode({ facts => $facts, ledger => $cloud->ledger, runs => $cloud->runs });
		close $file;
		diag("facts and ledger: $PostgreSQL::Test::Utils::tmp_check/cycle_$cycle_seed.json, log: " . $node->logfile);
	};
	if ($overdue_after)
	{
		value('ALTER SYSTEM RESET weir.overdue_after');
		value('SELECT pg_reload_conf()');
	}
	$cloud->reset;
	value('SELECT public.forget(); ' . join(' ', map { "SELECT weir.alter_pool('$_', $pools{$_});" } sort keys %pools)
		. ' TRUNCATE public.journal');
	return;
}

my $began = time;
my $n = 0;
while ($n < $cycles && time - $began < $limit && (Test::More->builder->is_passing || $ENV{GO_ON}))
{
	cycle($seed + $n++);
}
note(sprintf('%d cycles in %.0f s; ', $n, time - $began) . join(', ', map { "$_ $done{$_}" } sort keys %done));
note(join(', ', map { "$_ $seen{$_}" } sort keys %seen));
if ($n >= 100)
{
	my @never = grep { !$seen{$_} } ('sql rows', 'for_each rows', 'adf_pipeline begun', 'databricks_job begun', 'http begun', 'lists succeeded', 'lists failed',
		'lists cancelled', 'lists again', 'signals', 'approvals', 'times', 'calls succeeded', 'calls failed', 'retries', 'failures',
		'pooled tasks', 'repairs', 'runs succeeded', 'runs failed', 'runs cancelled', 'runs timed_out', 'runs skipped',
		'databricks_notebook begun', 'databricks_sql begun', 'databricks_serving begun', 'webhook begun', 'removed runs', 'skips',
		'assumed', 'resolved', 'landings resumed', 'landings beside', 'queued before others', 'ready before others',
		$n < 300 ? () : ('overdue', 'disabled starts', 'calls cancelled', 'decided succeeded', 'decided failed', 'decided send_again', 'decided adopt', 'sent again', 'adopted',
			'repairs after D'));
	is("@never", '', 'there was everything to judge');
	is(join(' ', grep { ($seen{$_} // 0) < $n / 20 } 'landings resumed', 'landings beside'), '', 'and landings as often as they are to be');
	is(join(' ', grep { !$done{$_} } sort keys %violence), '', 'everything died that can') unless $ENV{ONLY};
}
$node->stop;
done_testing();
