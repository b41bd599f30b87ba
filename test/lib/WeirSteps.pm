# WeirSteps.pm - cuts any exchange of a task with the local cloud, from its
# sign-in to the last thing it asks, and not only that which begins work, as
# WeirCuts does: the next page, the next piece of an answer, a file's look, its
# copy, its removal, a message's deletion.
#
#   my $steps = WeirSteps->new($node, $cloud, azurite => $azurite);	# without it no copies
#   $steps->measure(@names);
#   $steps->round({ map { $_ => 8 } @names }, name => 'cut', manners => [ 'reset', 'close' ]);
#   $steps->round({ ... }, manners => [ 'freeze', 'late' ], kill => 1);	# all held, then kill -9
#
# Every task has a connection, a pipeline and a run of its own, and things of
# its own elsewhere: by what is there in the end, and by the ledger, it is
# judged.  What a kind says:
#
#	base		another kind of %WeirCuts::kinds whose connection, spec and works these are
#	tasks		instead of one task of "spec": all tasks of the pipeline
#	again		the run fails first, and it is its repair that is cut
#	ends		how runs end ("succeeded"), and the code of the error
#	times		how often a run begins work (1)
#	judge		what else must be: a list of complaints
#	from		the first exchange that is cut (0)
#	sure		as in WeirCuts

package WeirSteps;

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use Test::More;
use Time::HiRes qw(time);

use WeirCuts;
use WeirTest;

our @ISA = ('WeirCuts');

my $json = JSON::PP->new->canonical->ascii;
my $true = JSON::PP::true;
my $entra = { type => 'entra_client_secret', tenant_id => 'local', client_id => 'weir-client', client_secret => 'cuts_secret' };
our $copying = 10;	# seconds, at the cloud's pace, that a copy takes
my $most = 16;		# exchanges of a task that are told apart
my $text = join('', map { "row $_\n" } 1 .. 50);
my %lake = (connection => [ 'storage', '/hns/blob', $entra, sub { return { dfs_url => "$_[1]/hns/dfs" } } ], sure => 'sure');
my %flat = (kind => 'storage', connection => [ 'storage', '/hns/blob', $entra ], sure => 'sure', works => ['hns.copy'], times => 2, prepare => \&put_unlike);
my %azurite = (needs => 'azurite', works => [], sure => 'sure');
my %fabric = (connection => [ 'fabric', '/fabric/v1', $entra, { workspace_id => '00000000-0000-4000-8000-000000000001', settle_seconds => 1 } ]);

sub own { return sprintf('00000000-0000-4000-9000-%012d', $_[0]) }
sub spread_files { my ($caller, @rest) = @_; return (container => 'steps', files => [ map { "$caller/in/$_.csv" } 1, 2 ], from => "$caller/in/", @rest) }
sub put_files { my ($self, $caller) = @_; $self->file("$caller/in/$_.csv", $text) foreach 1, 2; return }
# of the second nobody knows the MD5
sub put_unlike { my ($self, $caller, $number, $content) = @_; $self->lake('PUT', "/$caller/in/$_.csv", content => $content // $text, $_ == 2 ? (more => { 'x-ms-meta-no_md5' => 'yes' }) : ()) foreach 1, 2; return }

our %kinds = (
	(map { ("$_ steps" => { base => $_ }) } grep { !/^(?:put|move|select|key)$/ } keys %WeirCuts::kinds),

	# --- files of a lake with folders
	put => { base => 'put' },
	away => { %lake, works => ['hns.rename'], times => 2, prepare => \&put_files,
		tasks => sub { my ($caller) = @_; return (
				{ name => 'incoming', kind => 'storage', phase => 'land', spec => { operation => 'list', container => 'steps', prefix => "$caller/in/" } },
				{ name => 'file', kind => 'file_away', depends_on => ['incoming'], spec => { container => 'steps', files => '{{tasks.incoming.output.files}}',
						from => "$caller/in/", archive => "$caller/archive/{{row_audit_id}}/", error => "$caller/error/{{row_audit_id}}/" } }) },
		judge => sub { my ($self, $caller, $it) = @_; return $self->files_are($caller, map { "$caller/archive/$it->{run}/$_.csv" } 1, 2) } },
	delete => { %lake, works => ['hns.delete'], times => 2, prepare => \&put_files, kind => 'storage',
		spec => sub { my %spec = spread_files($_[0]); delete $spec{from}; return { operation => 'delete', %spec } },
		judge => sub { my ($self, $caller) = @_; return $self->files_are($caller) } },

	# --- copies that the service makes in its own time, and what is deleted then
	pcopy => { %flat, spec => sub { return { operation => 'copy', spread_files($_[0], to => "$_[0]/out/") } },
		judge => sub { my ($self, $caller) = @_; return $self->files_are($caller, map { ("$caller/in/$_.csv", "$caller/out/$_.csv") } 1, 2) } },
	pmove => { %flat, spec => sub { return { operation => 'move', spread_files($_[0], to => "$_[0]/out/") } },
		judge => sub { my ($self, $caller) = @_; return $self->files_are($caller, map { "$caller/out/$_.csv" } 1, 2) } },
	parchive => { %flat, kind => 'file_away', spec => sub { return { spread_files($_[0], archive => "$_[0]/done/") } },
		judge => sub { my ($self, $caller) = @_; return $self->files_are($caller, map { "$caller/done/$_.csv" } 1, 2) } },
	# ... but not what a restart needs that goes on after landing
	kept => { %flat, works => [], times => 0, ends => 'failed', tasks => sub { my ($caller) = @_; return (
				{ name => 'incoming', kind => 'storage', phase => 'land', spec => { operation => 'list', container => 'steps', prefix => "$caller/in/" } },
				{ name => 'load', kind => 'sql', connection => undef, depends_on => ['incoming'], spec => { sql => 'SELECT 1/0' }, retry => undef, on_uncertain => undef },
				{ name => 'file', kind => 'file_away', depends_on => ['load'], spec => { container => 'steps', files => '{{tasks.incoming.output.files}}',
						from => "$caller/in/", archive => "$caller/done/", error => "$caller/error/" } }) },
		judge => sub { my ($self, $caller, $it) = @_; return (($it->{output} =~ /"kept"/ ? () : "output $it->{output}"), $self->files_are($caller, map { "$caller/in/$_.csv" } 1, 2)) } },

	# --- files of a real server, which copies and then deletes
	copy => { %azurite, kind => 'storage', spec => sub { return { operation => 'copy', spread_files($_[0], to => "$_[0]/out/") } },
		judge => sub { my ($self, $caller) = @_; return $self->files_are($caller, map { ("$caller/in/$_.csv", "$caller/out/$_.csv") } 1, 2) } },
	move => { %azurite, kind => 'storage', spec => sub { return { operation => 'move', spread_files($_[0], to => "$_[0]/out/") } },
		judge => sub { my ($self, $caller) = @_; return $self->files_are($caller, map { "$caller/out/$_.csv" } 1, 2) } },
	archive => { %azurite, kind => 'file_away', spec => sub { return { spread_files($_[0], archive => "$_[0]/done/") } },
		judge => sub { my ($self, $caller) = @_; return $self->files_are($caller, map { "$caller/done/$_.csv" } 1, 2) } },

	# --- Fabric: operations, jobs that are no news to it, activities
	call => { %fabric, kind => 'fabric_item', works => ['fabric.refresh'], sure => 'ask',
		spec => sub { return { call => { path => '/workspaces/00000000-0000-4000-8000-000000000001/sqlEndpoints/' . own($_[1]) . '/refreshMetadata', body => { seconds => 1 } } } },
		judge => sub { my ($self, $caller, $it) = @_; return !$it->{asked} && $it->{output} !~ /flights/ ? 'without its result' : () } },
	deduped => { %fabric, kind => 'fabric_item', works => ['fabric.run'], sure => 'sure', ends => 'failed Deduped', more => { retry => { max_attempts => 1 } },
		prepare => sub { my ($self, undef, $number) = @_; $self->busy(own($number)) },
		spec => sub { return { item => own($_[1]), job_type => 'TableMaintenance' } } },
	activities => { %fabric, kind => 'fabric_item', works => ['fabric.run'], sure => 'sure',
		spec => sub { return { item => own($_[1]), job_type => 'Pipeline' } },
		judge => sub { my ($self, $caller, $it) = @_; return $it->{rows} ne '4334 4330 2' ? "rows and activities: $it->{rows}" : () } },

	# --- what goes on where it failed
	recover => { base => 'adf', again => 1, times => 1,
		prepare => sub { my ($self, $caller) = @_;
			$self->{cloud}->call('POST', 'pipelines', { name => $caller, activities => [ { name => 'Lookup', type => 'Lookup', seconds => 0.1 }, { name => 'Copy', type => 'Copy', seconds => 0.1 } ] });
			$self->{cloud}->add_fault(fault => 'copy_fails', pipeline => $caller) },
		spec => sub { return { pipeline => $_[0], on_restart => 'recover', parameters => { row_audit_id => '{{row_audit_id}}', limit => 10 } } },
		judge => sub { my ($self, $caller) = @_; my @all = grep { $_->{pipeline} eq $caller } @{ $self->adf };
			my $did = join(' | ', map { join(' ', map { $_->{activity} } @{ $_->{activities} }) } @all);
			return $did ne 'Lookup Copy | Copy' ? "did $did" : () } },
	repair => { base => 'job', again => 1, works => [ 'databricks.repair', 'databricks.run-now' ],
		prepare => sub { my ($self, $caller, $number) = @_;
			$self->{cloud}->call('POST', 'jobs', { job_id => 100000 + $number, name => $caller, tasks => [ { task_key => 'first', action => 'echo' }, { task_key => 'second', action => 'echo', depends_on => ['first'] } ] });
			$self->{cloud}->add_fault(fault => 'task_fails', job_id => 100000 + $number, task_key => 'second', message => 'no disk') },
		spec => sub { return { job_id => 100000 + $_[1] } },
		judge => sub { my ($self, $caller, $it) = @_; return $it->{begun_by}{'databricks.repair'} ? () : 'not repaired' } },

	# --- pieces, pages, messages, tokens
	pieces => { base => 'select',
		spec => sub { return { statement => 'WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 7) SELECT i FROM s', warehouse_id => 'wh1', idempotent => $true } },
		judge => sub { my ($self, $caller, $it) = @_; return $it->{output} =~ tr/ "//dr !~ /rows:\[\{i:1\},\{i:2\},\{i:3\},\{i:4\},\{i:5\},\{i:6\},\{i:7\}\]/ ? "rows: $it->{output}" : () } },
	pages => { base => 'post', works => [], sure => 'sure',
		spec => sub { return { path => '/pages/next', query => { count => 25, size => 10 }, pages => { items => '$.items', next => { json => q{$['@next']} } } } },
		judge => sub { my ($self, $caller, $it) = @_; my $n = () = $it->{output} =~ /"name"/g; return $n != 25 ? "$n of 25 items" : () } },
	oauth => { base => 'job', connection => [ 'databricks', '/dbx', { type => 'databricks_oauth', client_id => 'weir-client', client_secret => 'cuts_secret' } ] });
$kinds{'hook steps'}{more} = { timeout => '1 minute' };
$kinds{'hook steps'}{from} = 1;		# whoever never got the request never calls back: WeirCuts has those
$kinds{'hook steps'}{judge} = sub { my ($self, $caller, $it) = @_; return $it->{status} eq 'succeeded' && $it->{output} !~ /done/ ? "output $it->{output}" : () };

# One kind, with what it takes from another.
sub kind
{
	my ($name) = @_;
	my $kind = $kinds{$name} or die "no such kind: $name";
	my $base = $kind->{base} ? $WeirCuts::kinds{ $kind->{base} } : {};
	return { %$base, %$kind };
}

sub new
{
	my ($class, $node, $cloud, %options) = @_;
	my $self = WeirCuts::new($class, $node, $cloud);

	$cloud->config(chunk_rows => 2, copy_seconds => $copying);
	$self->{azurite} = $options{azurite};
	$self->{number} = 1_000_000;	# beside a WeirCuts of the same node and cloud
	if ($self->{azurite})
	{
		$cloud->config(storage => $self->{azurite}->address);
		$self->{azurite}->create_container('steps');
		$self->value('SELECT weir.create_secret(\'cuts_sas\', ' . WeirCuts::literal($self->{azurite}->sas) . ')');
	}
	return $self;
}

sub names { my ($self) = @_; return grep { !$kinds{$_}{needs} || $self->{azurite} } sort keys %kinds }

# --- things elsewhere -------------------------------------------------------------

sub token
{
	my ($self, $scope) = @_;
	return $self->{tokens}{$scope} //= $json->decode($self->{http}->post_form($self->{cloud}->address . '/local/oauth2/v2.0/token', { grant_type => 'client_credentials',
		client_id => 'weir-client', client_secret => 'weir-secret', scope => "$scope/.default" })->{content})->{access_token};
}

sub lake
{
	my ($self, $method, $path, %with) = @_;
	my $more = delete $with{more} // {};
	my $answer = $self->{http}->request($method, $self->{cloud}->address . "/hns/blob/steps$path", { headers => { Authorization => 'Bearer ' . $self->token('https://storage.azure.com'),
				'x-ms-version' => '2023-11-03', 'x-ms-date' => 'now', 'x-ms-blob-type' => 'BlockBlob', %$more }, %with });
	die "$method $path: $answer->{status} $answer->{content}" unless $answer->{success};
	return $answer->{content};
}

sub file
{
	my ($self, $name, $content) = @_;
	if ($name =~ /^(?:copy|move|archive)-/)
	{
		$self->{azurite}->put("steps/$name", $content);
		return;
	}
	return $self->SUPER::file($name) unless defined $content;
	$self->lake('PUT', "/$name", content => $content);
	return;
}

# Are these the files below a caller's name, all of them whole, and no others?
sub files_are
{
	my ($self, $caller, @expected) = @_;
	my @names;

	if ($caller =~ /^(?:copy|move|archive)-/)
	{
		@names = split / /, $self->{azurite}->names('steps', "$caller/");
	}
	else
	{
		@names = $self->lake('GET', "?restype=container&comp=list&prefix=$caller/") =~ m{<Name>([^<]*)</Name><Properties>(?:(?!</Properties>).)*<ResourceType>file<}g;
	}
	my @wrong = "@names" eq join(' ', sort @expected) ? () : ("files are @names");
	foreach my $name (@names)
	{
		my $content = $caller =~ /^(?:copy|move|archive)-/ ? $self->{azurite}->get("steps/$name") : $self->lake('GET', "/$name");
		push @wrong, "$name has " . length($content) . ' bytes of ' . length($text) if $content ne $text;
	}
	return @wrong;
}

# A job of an item that never ends.
sub busy
{
	my ($self, $item) = @_;
	$self->{cloud}->add_fault(fault => 'never_ends', job_id => $item);
	my $url = $self->{cloud}->address . "/fabric/v1/workspaces/00000000-0000-4000-8000-000000000001/items/$item/jobs/TableMaintenance/instances";
	my $answer = $self->{http}->post($url, { headers => { Authorization => 'Bearer ' . $self->token('https://api.fabric.microsoft.com') } });
	die "$url: $answer->{status} $answer->{content}" unless $answer->{status} == 202;
	return;
}

sub adf { my ($self) = @_; return $self->{adf} //= $self->{cloud}->runs->{adf} }

# --- a pipeline for each cut ----------------------------------------------------------

sub _connect
{
	my ($self, $name, $caller, $what) = @_;
	my ($type, $path, $auth, $options) = @$what;
	my $base = "$self->{address}/as-$caller";

	$auth = { %$auth, authority => $base } if $auth && $auth->{type} =~ /entra/;
	$options = $options->($caller, $base) if ref $options eq 'CODE';
	($base, $auth) = ($self->{address}, { type => 'sas', token => 'cuts_sas' }) if $path eq '/devstoreaccount1';
	return "SELECT weir.create_connection('$name', '$type', '$base$path', " . WeirCuts::literal($auth && $json->encode($auth)) . ', '
	  . WeirCuts::literal($options && $json->encode($options)) . ');';
}

# N callers of a kind, each with a pipeline of its name.
sub define
{
	my ($self, $name, $n) = @_;
	my $kind = kind($name);
	my $sql = '';
	my @callers;

	foreach (1 .. $n)
	{
		my $number = ++$self->{number};
		my $caller = sprintf('%s-%05d', $name =~ s/ steps//r, $number);
		my @tasks = $kind->{tasks} ? $kind->{tasks}->($caller, $number) : { name => 'it', kind => $kind->{kind}, spec => $kind->{spec}->($caller, $number) };

		put_files($self, $caller) if $kind->{needs};
		$kind->{prepare}->($self, $caller, $number) if $kind->{prepare};
		$sql .= $self->_connect($caller, $caller, $kind->{connection} // [ 'storage', '/devstoreaccount1' ]);
		$sql .= $self->_connect("$caller-other", $caller, $kind->{other}) if $kind->{other};
		@tasks = map { { connection => $caller, retry => { max_attempts => $kind->{again} ? 1 : 3, initial_delay => '200 milliseconds' }, on_uncertain => 'ask', %{ $kind->{more} // {} }, %$_ } } @tasks;
		foreach my $task (@tasks) { delete @$task{ grep { !defined $task->{$_} } keys %$task } }
		$sql .= "SELECT weir.create_pipeline('$caller', " . WeirCuts::literal($json->encode({ tasks => \@tasks })) . ');';
		push @callers, $caller;
	}
	$self->value($sql);
	return @callers;
}

sub _plan
{
	my ($self, $cuts, @names) = @_;
	my @rules = map { my $name = $_; my $callers = $name =~ s/ steps//r . '-';
		map { { name => "$name $_", callers => $callers, path => '.', nth => $_ } } 0 .. $most - 1 } @names;
	$self->call('POST', 'plan', { rules => \@rules, cuts => $cuts });
	return;
}

# Which exchanges there are, and how long: nothing is cut, then the answer to
# the first that begins work.
sub measure
{
	my ($self, @names) = @_;

	$self->round({ map { $_ => 2 } @names }, name => 'measured', plain => 1);
	my $lengths = $self->call('GET', 'state')->{lengths};
	foreach my $name (@names)
	{
		$self->{steps}{$name} = [ grep { $_->[1] > 0 } map { [ $_, @{ $lengths->{"$name $_"} } ] } ($kinds{$name}{from} // 0) .. $most - 1 ];
		note("$name: " . join(' ', map { "$_->[1]/$_->[2]" } @{ $self->{steps}{$name} }));
	}
	return;
}

# The next cut of a kind: its exchanges take turns, at any byte, or at any of
# the answer.
sub deal
{
	my ($self, $name, $is_answer, @manners) = @_;
	my @steps = @{ $self->{steps}{$name} };
	my $turn = $self->{turn}{$name}++;
	my ($nth, $request, $response) = @{ $steps[ $turn % @steps ] };
	my $position = $is_answer ? $request + 1 + int(rand($response - 1)) : int(rand($request + $response));

	return ($nth, $position <= $request ? [ 'request', $position ] : [ 'response', $position - $request ], $manners[ rand @manners ]);
}

sub round
{
	my ($self, $wanted, %options) = @_;
	my $node = $self->{node};
	my (%callers, %cut, %plan, %run);

	$self->{adf} = undef;
	# Of those that begin in turns not all can be held at a time.
	foreach my $name (grep { !($options{kill} && $WeirCuts::kinds{ $kinds{$_}{base} // '' }{in_turns}) } sort keys %$wanted)
	{
		foreach my $caller (@{ $callers{$name} = [ $self->define($name, $wanted->{$name}) ] })
		{
			next if $options{plain};
			my ($nth, $where, $manner) = $self->deal($name, $options{answers}, @{ $options{manners} });
			$cut{$caller} = [ "step $nth", @$where, $manner ];
			$plan{$caller} = { "$name $nth" => [ @$where, $manner ] };
		}
	}
	my @all = map { @$_ } values %callers;
	my @again = map { @{ $callers{$_} } } grep { $kinds{$_}{again} } keys %callers;
	$self->_trigger(\%run, @again);
	is(wait_for_run($node, $run{$_}), 'failed', "$_ fails at first") foreach @again;
	$self->_plan(\%plan, sort keys %callers);
	my $since = $self->_newest;
	$self->value(join('', map { "SELECT weir.repair($run{$_});" } @again)) if @again;
	my %again = map { $_ => 1 } @again;
	$self->_trigger(\%run, grep { !$again{$_} } @all);
	my $runs = join(', ', values %run);
	if ($options{kill})
	{
		my $done = "SELECT count(*) FROM weir.run r WHERE r.run_id IN ($runs) AND (r.status NOT IN ('queued', 'running')"
		  . " OR EXISTS (SELECT FROM weir.task_run t JOIN weir.attempt a USING (task_run_id, attempt_no) WHERE t.run_id = r.run_id AND t.status = 'running' AND a.kind_state ? 'uncertain'))";
		my $held;
		$self->_wait('all exchanges are held or over', sub { $held = $self->_held; return $held + $self->value($done) >= @all });
		$self->{held} += $held;
		note("$held exchanges are held of " . @all);
		$self->_kill;
	}
	$self->_judge($since, \%callers, \%run, \%cut, $options{name} // 'round');
	my $done = @{ $self->call('GET', 'state')->{done} };
	$self->{cuts} += $done;
	return $done;
}

sub _trigger
{
	my ($self, $run, @callers) = @_;
	return unless @callers;
	@$run{@callers} = split /\n/, $self->value('SELECT weir.trigger(name) FROM unnest(ARRAY[' . join(', ', map { "'$_'" } @callers) . ']) WITH ORDINALITY AS p (name, no) ORDER BY no');
	return;
}

sub _begun
{
	my ($self, $since, @works) = @_;
	my %begun;
	foreach my $operation (@works)
	{
		$begun{ $_->{caller} }{$operation}++ foreach grep { defined $_->{caller} } @{ $self->{cloud}->ledger(operation => $operation, since => $since, started => 'true') };
	}
	return \%begun;
}

sub _sum { my ($begun) = @_; my $n = 0; $n += $_ foreach values %{ $begun // {} }; return $n }

sub _judge
{
	my ($self, $since, $callers, $run, $cut, $round) = @_;
	my $node = $self->{node};
	my $runs = join(', ', values %$run);
	my %asked;

	wait_until($node, 'everything has ended or is uncertain', qq{
		SELECT count(*) = 0 FROM weir.run r WHERE run_id IN ($runs) AND status IN ('queued', 'running', 'cancelling') AND NOT EXISTS (
			SELECT FROM weir.task_run t JOIN weir.attempt a USING (task_run_id, attempt_no) WHERE t.run_id = r.run_id AND t.status = 'running' AND a.kind_state ? 'uncertain')})
	  or diag($self->value("SELECT p.name, t.task_name, t.status, a.attempt_no, a.step, a.kind_state, t.error_message FROM weir.task_run t JOIN weir.run r USING (run_id) JOIN weir.pipeline p USING (pipeline_id) LEFT JOIN weir.attempt a USING (task_run_id, attempt_no) WHERE t.run_id IN ($runs) AND t.status IN ('waiting', 'ready', 'running') LIMIT 20"));
	my %uncertain = map { split /\|/ } split /\n/, $self->value("SELECT t.run_id, t.task_run_id FROM weir.task_run t JOIN weir.attempt a USING (task_run_id, attempt_no) WHERE t.run_id IN ($runs) AND t.status = 'running' AND a.kind_state ? 'uncertain'");
	my %wrong;
	foreach my $name (sort keys %$callers)
	{
		my $kind = kind($name);
		my $begun = $self->_begun($since, @{ $kind->{works} });
		foreach my $caller (@{ $callers->{$name} })
		{
			my $id = $uncertain{ $run->{$caller} } // next;
			my $n = _sum($begun->{$caller});
			push @{ $wrong{$name} }, "$caller " . $json->encode($cut->{$caller}) . " uncertain, begun $n times" if $kind->{sure} ne 'ask' || $n > ($kind->{times} // 1);
			$asked{$caller} = 1;
			$self->value("SELECT weir.resolve($id, " . ($n ? "'succeeded'" : "'send_again'") . ", 'as the ledger says')");
		}
	}
	wait_until($node, 'everything has ended', "SELECT count(*) = 0 FROM weir.run WHERE run_id IN ($runs) AND status IN ('queued', 'running', 'cancelling')");
	my %facts = map { my $row = $json->decode($_); ($row->{run} => $row) } split /\n/, $self->value(qq{
		SELECT jsonb_build_object('run', r.run_id, 'status', r.status, 'output', coalesce(t.output::text, ''), 'code', coalesce(a.error_code, ''), 'attempts', t.attempt_no,
			'message', coalesce(t.error_message, ''), 'rows', concat_ws(' ', t.rows_read, t.rows_written, (SELECT count(*) FROM weir.activity y WHERE y.run_id = r.run_id)))
		FROM weir.run r JOIN LATERAL (SELECT * FROM weir.task_run t WHERE t.run_id = r.run_id ORDER BY t.task_no DESC LIMIT 1) t ON true
		LEFT JOIN weir.attempt a USING (task_run_id, attempt_no) WHERE r.run_id IN ($runs)});
	foreach my $name (sort keys %$callers)
	{
		my $kind = kind($name);
		my $begun = $self->_begun($since, @{ $kind->{works} });
		foreach my $caller (@{ $callers->{$name} })
		{
			my $it = $facts{ $run->{$caller} };
			my $n = _sum($begun->{$caller});
			my $ended = $it->{status} . ($it->{status} eq 'failed' && $it->{code} ne '' ? " $it->{code}" : '');
			my @what;

			$it->{asked} = $asked{$caller};
			$it->{begun_by} = $begun->{$caller} // {};
			if ($kind->{sure} eq 'waits' && $n == 0)
			{
				push @what, "ended $ended" if $it->{status} ne 'failed' && $it->{status} ne 'timed_out';
			}
			else
			{
				push @what, "ended $ended in attempt $it->{attempts}: $it->{message}" if $ended ne ($kind->{ends} // 'succeeded') && !$it->{asked};
				push @what, "begun $n times" if $n != (@{ $kind->{works} } ? $kind->{times} // 1 : 0);
				push @what, $kind->{judge}->($self, $caller, $it) if $kind->{judge};
			}
			push @{ $wrong{$name} }, "$caller " . $json->encode($cut->{$caller} // []) . ": $_" foreach @what;
		}
		is(join("\n", @{ $wrong{$name} // [] }), '', "$round, $name: " . @{ $callers->{$name} } . ' runs came to what they should' . (%asked ? ', if need be with somebody\'s help' : ''));
	}
	return;
}

1;
