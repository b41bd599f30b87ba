# WeirCuts.pm - cuts the exchanges between a conductor and the local cloud at
# chosen bytes (test/cloud/cutter.py) and proves afterwards, from the cloud's
# ledger and weir's log, that every task was begun at most once, and that the
# log says what became of it.
#
#   my $cuts = WeirCuts->new($node, $cloud);
#   $cuts->measure;                            # how long the exchanges are
#   $cuts->round({ job => [ $cut, ... ], ... });   # a task for each cut
#   $cuts->round({ ... }, kill => 1);          # ... held at its byte, then kill -9
#
# A cut is { start => [where, position, manner], look => [...] }: of the request
# that starts work, and of the first one that asks what became of it.  Every
# task has a connection of its own, whose name is the caller the cloud sees.
#
# What is held ends when somebody is killed, and not before, however long it
# takes until all is (this machine is slow, starts at one workspace take turns):
# the node needs $WeirCuts::conf, and whoever waits for a callback that may
# never come has all the time until the kill.

package WeirCuts;

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use WeirHelper;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $true = JSON::PP::true;
my $entra = { type => 'entra_client_secret', tenant_id => 'local', client_id => 'weir-client', client_secret => 'cuts_secret' };
my $pat = { type => 'pat', token => 'cuts_token' };
my %job_poll = (path => '/jobs/{id}', every => 0.3, status => '$.state', succeeded => ['done'], failed => ['failed']);

# What would end by itself what is held.
our $conf = "weir.http_timeout = '1h'\nweir.http_stall_timeout = 0\nweir.cancel_grace = '1h'\n";

# What dispatches.  connection: its kind, what follows /as-NAME in its address,
# auth, options; spec, and options, for the Nth task; start, look: method and
# pattern of the path; works: the operations that begin work.  Whether weir can
# find out what a lost start became: yes ('sure'), only by asking a person
# ('ask'), or by waiting ('waits').  in_turns: two tasks each begin at the same
# place, one after the other, so that not all can be held at a time.
our %kinds = (
	job => { kind => 'databricks_job', sure => 'sure', works => ['databricks.run-now'],
		connection => [ 'databricks', '/dbx', $pat ], spec => sub { return { job_id => 102, job_parameters => { seconds => '1' } } },
		start => [ 'POST', '/jobs/run-now$' ], look => [ 'POST', '/jobs/run-now$', 1 ] },
	notebook => { kind => 'databricks_notebook', sure => 'sure', works => ['databricks.submit'],
		connection => [ 'databricks', '/dbx', $pat ], spec => sub { return { notebook_path => '/Shared/echo' } },
		start => [ 'POST', '/runs/submit$' ], look => [ 'POST', '/runs/submit$', 1 ] },
	statement => { kind => 'databricks_sql', sure => 'ask', works => ['databricks.execute'],
		connection => [ 'databricks', '/dbx', $pat, { settle_seconds => 2 } ],
		spec => sub { return { statement => 'SELECT 1', warehouse_id => 'wh1' } },
		start => [ 'POST', '/sql/statements$' ], look => [ 'GET', '/sql/history/queries' ] },
	select => { kind => 'databricks_sql', sure => 'sure', works => ['databricks.execute'],
		connection => [ 'databricks', '/dbx', $pat, { settle_seconds => 2 } ],
		spec => sub { return { statement => 'SELECT 1', warehouse_id => 'wh2', idempotent => $true } },
		start => [ 'POST', '/sql/statements$' ], look => [ 'GET', '/sql/history/queries' ] },
	update => { kind => 'databricks_pipeline', sure => 'sure', works => ['databricks.pipeline-start'],
		connection => [ 'databricks', '/dbx', $pat, { settle_seconds => 1 } ],
		prepare => sub { my ($self, $caller) = @_; $self->{cloud}->call('POST', 'declarative', { pipeline_id => $caller, flows => [ { name => 'm.s.t', rows => 1 } ] }) },
		spec => sub { return { pipeline_id => $_[0] } },
		start => [ 'POST', '/updates$' ], look => [ 'GET', '/updates\?', 1 ] },
	serving => { kind => 'databricks_serving', sure => 'ask', works => ['databricks.invoke'],
		connection => [ 'databricks', '/dbx', $pat ], spec => sub { return { endpoint => 'adder', instances => [ [ 1, 2 ] ] } },
		start => [ 'POST', '/invocations$' ] },
	adf => { kind => 'adf_pipeline', sure => 'sure', works => ['adf.createRun'],
		connection => [ 'adf', '/adf', $entra, sub { return { subscription_id => 's1', resource_group => 'rg', factory => "f-$_[0]", settle_seconds => 1 } } ],
		spec => sub { return { pipeline => 'wait', parameters => { seconds => 1 } } },
		start => [ 'POST', '/createRun\?' ], look => [ 'POST', '/queryPipelineRuns\?' ] },
	fabric => { kind => 'fabric_item', sure => 'sure', works => ['fabric.run'],
		connection => [ 'fabric', '/fabric/v1', $entra, { workspace_id => '00000000-0000-4000-8000-000000000001', settle_seconds => 1 } ],
		spec => sub { return { item => sprintf('00000000-0000-4000-9000-%012d', $_[1]), job_type => 'RunNotebook' } },
		start => [ 'POST', '/jobs/(RunNotebook/)?instances' ], look => [ 'GET', '/jobs/instances(\?|$)', 1 ] },
	shared => { kind => 'fabric_item', sure => 'sure', works => ['fabric.run'], in_turns => 1,
		connection => [ 'fabric', '/fabric/v1', $entra, { workspace_id => '00000000-0000-4000-8000-000000000001', settle_seconds => 1 } ],
		spec => sub { return { item => sprintf('00000000-0000-4000-9000-%012d', 900_000_000 + int($_[1] / 2)), job_type => 'RunNotebook' } },
		start => [ 'POST', '/jobs/(RunNotebook/)?instances' ], look => [ 'GET', '/jobs/instances(\?|$)', 1 ] },
	post => { kind => 'http', sure => 'ask', works => ['http.json'],
		connection => [ 'http', '/http' ], spec => sub { return { method => 'POST', path => '/json/post', body => { n => 1 } } },
		start => [ 'POST', '/json/post$' ] },
	key => { kind => 'http', sure => 'sure', works => ['http.json'],
		connection => [ 'http', '/http' ], spec => sub { return { method => 'POST', path => '/json/key', body => { n => 1 }, idempotent => $true } },
		start => [ 'POST', '/json/key$' ], look => [ 'POST', '/json/key$', 1 ] },
	follow => { kind => 'http', sure => 'ask', works => ['http.job-start'],
		connection => [ 'http', '/http' ],
		spec => sub { return { method => 'POST', path => '/jobs', body => { seconds => 1 }, id => '$.id', poll => {%job_poll},
				lookup => { path => '/jobs', query => { key => '{token}' }, id => '$.jobs[0].id', settle => 0.5 } } },
		start => [ 'POST', '/http/jobs$' ], look => [ 'GET', '/http/jobs\?key=' ] },
	hook => { kind => 'webhook', sure => 'waits', works => ['http.job-start'],
		connection => [ 'http', '/queue' ], other => [ 'http', '/http' ],
		prepare => sub { my ($self, $caller) = @_; $self->{cloud}->call('POST', 'queues', { queue => $caller, create => $true }) },
		spec => sub { return { queue => $_[0], every => 0.5, hide_seconds => 5, status => '$.state', succeeded => ['done'],
				request => { connection => "$_[0]-other", method => 'POST', path => '/jobs', id => '$.id', body => { seconds => 1, callback => { queue => $_[0], token => '{token}' } } } } },
		more => { timeout => '10 seconds' },
		start => [ 'POST', '/http/jobs$' ] },
	vault => { kind => 'keyvault', sure => 'sure', works => ['keyvault.set'],
		connection => [ 'keyvault', '/vault', $entra ],
		spec => sub { return { operation => 'set', name => $_[0], from_secret => 'cuts_secret' } },
		start => [ 'PUT', '/vault/secrets/' ], look => [ 'GET', '/versions\?' ] },
	put => { kind => 'storage', sure => 'sure', works => ['hns.put'],
		connection => [ 'storage', '/hns/blob', $entra ],
		spec => sub { return { operation => 'put', container => 'cuts', name => "put/$_[0]", text => 'one' } },
		start => [ 'PUT', '/hns/blob/' ], look => [ 'HEAD', '/hns/blob/', 1 ] },
	move => { kind => 'storage', sure => 'sure', works => [ 'hns.rename' ],
		connection => [ 'storage', '/hns/blob', $entra, sub { return { dfs_url => "$_[1]/hns/dfs" } } ],
		prepare => sub { my ($self, $caller) = @_; $self->file("from/$caller") },
		spec => sub { return { operation => 'move', container => 'cuts', files => ["from/$_[0]"], from => 'from/', to => "to/$_[0]/" } },
		start => [ 'PUT', '/hns/dfs/cuts/to/[^/]+/[^/]+$' ], look => [ 'HEAD', '/hns/blob/', 2 ] });

sub new
{
	my ($class, $node, $cloud) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/cutter.address';
	my $pid = fork_helper("$file.log", sub { exec('python3', "$WeirTest::root/test/cloud/cutter.py", '--target', $cloud->port, '--address-file', $file) });
	my $self = bless { node => $node, cloud => $cloud, pid => $pid, owner => $$, number => 0, cuts => 0,
		http => HTTP::Tiny->new(timeout => $PostgreSQL::Test::Utils::timeout_default) }, $class;
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	until (-s $file)
	{
		die "the cutter did not start, see $file.log" if time > $limit;
		select(undef, undef, undef, 0.02);
	}
	$self->{address} = PostgreSQL::Test::Utils::slurp_file($file);
	$self->value(q{SELECT weir.create_secret(name, value) FROM (VALUES ('cuts_token', 'dapi-local'), ('cuts_secret', 'weir-secret')) AS v (name, value)
		WHERE NOT EXISTS (SELECT FROM weir.secrets s WHERE s.name = v.name)});
	return $self;
}

sub DESTROY
{
	my ($self) = @_;
	return unless $self->{owner} == $$;
	local ($?, $@, $!);
	kill('TERM', $self->{pid});
	waitpid($self->{pid}, 0);
	return;
}

sub value { my ($self, $sql) = @_; return $self->{node}->safe_psql('postgres', $sql) }
sub literal { return defined $_[0] ? "'" . ($_[0] =~ s/'/''/gr) . "'" : 'NULL' }
sub call
{
	my ($self, $method, $path, $value) = @_;
	my $answer = $self->{http}->request($method, "$self->{address}/_cutter/$path", defined $value ? { content => $json->encode($value) } : {});
	die "$method $path: $answer->{status} $answer->{content}" unless $answer->{success};
	return $json->decode($answer->{content});
}

# A file to move.
sub file
{
	my ($self, $name) = @_;
	my $address = $self->{cloud}->address;
	my $token = $json->decode($self->{http}->post_form("$address/local/oauth2/v2.0/token", { grant_type => 'client_credentials',
		client_id => 'weir-client', client_secret => 'weir-secret', scope => 'https://storage.azure.com/.default' })->{content})->{access_token};
	my $answer = $self->{http}->put("$address/hns/blob/cuts/$name", { content => 'one',
		headers => { Authorization => "Bearer $token", 'x-ms-version' => '2023-11-03', 'x-ms-date' => 'now', 'x-ms-blob-type' => 'BlockBlob' } });
	die "$name: $answer->{status} $answer->{content}" unless $answer->{success};
	return;
}

# --- a task for each cut ---------------------------------------------------------

sub _connect
{
	my ($self, $name, $caller, $what) = @_;
	my ($kind, $path, $auth, $options) = @$what;
	my $base = "$self->{address}/as-$caller";

	$auth = { %$auth, authority => $self->{cloud}->address } if $auth && $auth->{type} =~ /entra/;
	$options = $options->($caller, $base) if ref $options eq 'CODE';
	return "SELECT weir.create_connection('$name', '$kind', '$base$path', " . literal($auth && $json->encode($auth)) . ', '
	  . literal($options && $json->encode($options)) . ');';
}

# Connections, and a pipeline of N tasks, with more members; returns it, and the callers in order.
sub define
{
	my ($self, $name, $n, %options) = @_;
	my $kind = $kinds{$name};
	my (@callers, @tasks);
	my $sql = '';

	foreach my $i (1 .. $n)
	{
		my $number = ++$self->{number};
		my $caller = sprintf('%s-%05d', $name, $number);

		$kind->{prepare}->($self, $caller) if $kind->{prepare};
		$sql .= $self->_connect($caller, $caller, $kind->{connection});
		$sql .= $self->_connect("$caller-other", $caller, $kind->{other}) if $kind->{other};
		push @callers, $caller;
		push @tasks, { name => $caller =~ s/-/_/r, kind => $kind->{kind}, connection => $caller, spec => $kind->{spec}->($caller, $number),
			retry => { max_attempts => 3, initial_delay => '200 milliseconds' }, on_uncertain => 'ask', %{ $kind->{more} // {} }, %options };
	}
	my $pipeline = sprintf('%s_%05d', $name, $self->{number});
	$self->value("$sql SELECT weir.create_pipeline('$pipeline', " . literal($json->encode({ tasks => \@tasks })) . ')');
	return ($pipeline, @callers);
}

sub _plan
{
	my ($self, $cuts) = @_;
	my @rules;

	foreach my $name (sort keys %kinds)
	{
		foreach my $which ('start', 'look')
		{
			my ($method, $path, $nth) = @{ $kinds{$name}{$which} // next };
			push @rules, { name => "$name $which", method => $method, path => $path, nth => ($nth // 0) + 0 };
		}
	}
	$self->call('POST', 'plan', { rules => \@rules, cuts => $cuts });
	return;
}

# One task of each kind, and nothing is cut: how long is what could be?  What
# is only asked after a cut is measured by cutting the last byte of a start.
sub measure
{
	my ($self, @names) = @_;
	@names = sort keys %kinds unless @names;
	foreach my $cut (undef, { start => [ 'response', 1, 'close' ] })
	{
		$self->round({ map { $_ => [ $cut // {} ] } @names });
		my $lengths = $self->call('GET', 'state')->{lengths};
		foreach my $rule (keys %$lengths)
		{
			my $known = $self->{lengths}{$rule} //= [ 0, 0 ];
			$known->[$_] = $known->[$_] > $lengths->{$rule}[$_] ? $known->[$_] : $lengths->{$rule}[$_] foreach (0, 1);
		}
	}
	return $self->{lengths};
}

# All places where an exchange can be cut: [where, position].
sub places
{
	my ($self, $name, $which) = @_;
	return () unless $kinds{$name}{$which};
	my ($request, $response) = @{ $self->{lengths}{"$name $which"} };
	return ((map { [ 'request', $_ ] } 0 .. $request), (map { [ 'response', $_ ] } 1 .. $response - 1));
}

# N of all places, evenly spread.
sub spread
{
	my ($n, $offset, @places) = @_;
	return map { $places[ int(($_ + $offset) * @places / $n) % @places ] } 0 .. $n - 1;
}

# The next N of all places in an order that srand() decides; one after the
# other all come up, then again.
sub _deal
{
	my ($self, $n, $name, $which) = @_;
	my $left = $self->{left}{"$name $which"} //= [];
	my @dealt;

	while (@dealt < $n)
	{
		@$left = sort { $a->[2] <=> $b->[2] } map { [ @$_, rand ] } $self->places($name, $which) unless @$left;
		push @dealt, [ @{ shift @$left }[ 0, 1 ] ];
	}
	return @dealt;
}

# N cuts of a kind: evenly spread from an offset on, or dealt when there is
# none; the starts end in turns as told.
sub cuts
{
	my ($self, $name, $n, $offset, @turns) = @_;
	my %places;

	foreach my $which (grep { $kinds{$name}{$_} } 'start', 'look')
	{
		$places{$which} = [ defined $offset ? spread($n, $offset, $self->places($name, $which)) : $self->_deal($n, $name, $which) ];
	}
	return [ map {
			my $i = $_;
			+{ map { ($_ => [ @{ $places{$_}[$i] }, $_ eq 'start' ? $turns[ $i % @turns ] : $i % 2 ? 'reset' : 'close' ]) } keys %places }
		} 0 .. $n - 1 ];
}

# --- a round -----------------------------------------------------------------------

sub round
{
	my ($self, $wanted, %options) = @_;
	my (%plan, %run, %cut);
	my $held = 0;

	foreach my $name (grep { !($options{kill} && $kinds{$_}{in_turns}) } sort keys %$wanted)
	{
		my @cuts = @{ $wanted->{$name} };
		my $forever = $options{kill} && $kinds{$name}{sure} eq 'waits';
		my ($pipeline, @callers) = $self->define($name, scalar @cuts, $forever ? (timeout => '1 hour') : ());

		foreach my $caller (@callers)
		{
			my $cut = $cut{$caller} = shift @cuts;
			$plan{$caller} = { map { ("$name $_" => $cut->{$_}) } keys %$cut };
			$held++ if $cut->{start} && $cut->{start}[2] =~ /^(freeze|late)$/;
		}
		$run{$name} = [ $pipeline, @callers ];
	}
	return 0 unless %run;
	$self->_plan(\%plan);
	my $since = $self->_newest;
	my $begun = time;
	$run{$_}[0] = weir_trigger($self->{node}, $run{$_}[0]) foreach sort keys %run;
	if ($options{kill})
	{
		$self->_wait("all $held exchanges are held", sub { return $self->_held >= $held });
		my $waiting = join(', ', map { $run{$_}[0] } grep { $kinds{$_}{sure} eq 'waits' } keys %run);
		$self->value("UPDATE weir.attempt SET deadline = clock_timestamp() + interval '$kinds{hook}{more}{timeout}' WHERE run_id IN ($waiting)") if $waiting;
		$self->{held} += $held;
		note(sprintf('%d exchanges are held after %.1f s', $held, time - $begun));
		$self->_kill;
	}
	my $done = $self->_judge($since, \%run, \%cut, $options{name} // 'round');
	$self->{cuts} += $done;
	return $done;
}

sub _newest { my ($self) = @_; my $entries = $self->{cloud}->ledger(limit => 1); return @$entries ? $entries->[-1]{seq} : 0 }

sub _held { my ($self) = @_; return $self->call('GET', 'state')->{frozen} }

# Whoever is not held by now will not be: after the kill nothing would end that.
sub _kill
{
	my ($self) = @_;
	$self->call('POST', 'hold-no-more');
	kill9_backend($self->{node}, 'weir conductor');
	wait_until($self->{node}, 'another conductor', "SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'weir conductor'");
	return;
}

# What was cut so far: how many of each rule, how many of them are held, and after how many seconds others were given up.
sub _so_far
{
	my ($self) = @_;
	my %rules;
	foreach my $cut (@{ $self->call('GET', 'state')->{done} })
	{
		my $rule = $rules{ $cut->{rule} } //= { cut => 0 };
		$rule->{cut}++;
		$rule->{held}++ if $cut->{held};
		push @{ $rule->{given_up} }, $cut->{seconds} if defined $cut->{seconds};
	}
	return $json->encode(\%rules);
}

sub _wait
{
	my ($self, $what, $is_so) = @_;
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	until ($is_so->())
	{
		die "waited in vain until $what: " . $self->_so_far if time > $limit;
		select(undef, undef, undef, 0.05);
	}
	return;
}

# caller -> how often the cloud began its work
sub _begun
{
	my ($self, $since, $name) = @_;
	my %begun;
	foreach my $operation (@{ $kinds{$name}{works} })
	{
		$begun{ $_->{caller} }++ foreach grep { defined $_->{caller} } @{ $self->{cloud}->ledger(operation => $operation, since => $since, started => 'true') };
	}
	return \%begun;
}

sub _judge
{
	my ($self, $since, $run, $cut, $round) = @_;
	my $node = $self->{node};
	my $runs = join(', ', map { $run->{$_}[0] } keys %$run);

	# Everything has ended, or waits for somebody who knows.
	wait_until($node, 'everything has ended or is uncertain', qq{
		SELECT count(*) = 0 FROM weir.run r LEFT JOIN weir.task_run t USING (run_id) LEFT JOIN weir.attempt a USING (task_run_id, attempt_no)
		WHERE r.run_id IN ($runs) AND (r.status = 'queued' OR t.status IN ('waiting', 'ready') OR (t.status = 'running' AND NOT coalesce(a.kind_state ? 'uncertain', false)))})
	  or diag($self->value("SELECT t.task_name, t.status, a.attempt_no, a.step, a.kind_state, t.error_message FROM weir.task_run t LEFT JOIN weir.attempt a USING (task_run_id, attempt_no) WHERE t.run_id IN ($runs) AND t.status IN ('waiting', 'ready', 'running') LIMIT 20"));
	my $state = $self->call('GET', 'state');
	foreach my $name (sort keys %$run)
	{
		my ($run_id, @callers) = @{ $run->{$name} };
		my $begun = $self->_begun($since, $name);
		my %task = map { my @row = split /\|/; ($row[0] =~ s/_/-/r => \@row) } split /\n/,
		  $self->value("SELECT t.task_name, t.task_run_id, t.status, t.attempt_no, coalesce(a.kind_state ? 'uncertain', false) FROM weir.task_run t LEFT JOIN weir.attempt a USING (task_run_id, attempt_no) WHERE t.run_id = $run_id");
		my @wrong;
		my $asked = 0;

		foreach my $caller (@callers)
		{
			my (undef, $id, $status, $attempts, $uncertain) = @{ $task{$caller} };
			my $n = $begun->{$caller} // 0;
			my $what = "$caller " . $json->encode($cut->{$caller}) . " begun $n times, $status in attempt $attempts";

			if ($n > 1)
			{
				push @wrong, $what;
			}
			elsif ($uncertain eq 't')
			{
				push @wrong, "$what, uncertain" if $kinds{$name}{sure} ne 'ask';
				$self->value("SELECT weir.resolve($id, " . ($n ? "'succeeded'" : "'send_again'") . ", 'as the ledger says')");
				$asked++;
			}
			elsif ($status eq 'succeeded' ? $n != 1 : !($kinds{$name}{sure} eq 'waits' && $n == 0 && $status eq 'timed_out'))
			{
				push @wrong, $what . ': ' . $self->value("SELECT error_message FROM weir.task_run WHERE task_run_id = $id");
			}
		}
		is(join("\n", @wrong), '', "$round, $name: " . scalar(@callers) . ' tasks are begun once, and the log knows');
		my $status = wait_for_run($node, $run_id);
		$begun = $self->_begun($since, $name);
		if ($kinds{$name}{sure} eq 'waits')
		{
			is(join(' ', grep { ($begun->{$_} // 0) > 1 } @callers), '', "$round, $name: at most once");
		}
		else
		{
			is($status, 'succeeded', "$round, $name: the run succeeds" . ($asked ? ", $asked were decided by somebody" : ''));
			is(join(' ', grep { ($begun->{$_} // 0) != 1 } @callers), '', "$round, $name: exactly once in the end");
		}
	}
	return scalar @{ $state->{done} };
}

1;
