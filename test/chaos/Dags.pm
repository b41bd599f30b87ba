# Dags.pm - random pipelines, as definitions for weir and as what the judge
# knows of them.  Only rand() decides: the same seed makes the same ones.

package Dags;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use JSON::PP;

use DagsCloud;
use Dice;

our @EXPORT = qw(one_of weighted chance random_pipeline random_list %pools %connections $theme);

# What a cycle is about: "unknown" has many tasks of which nobody may know
# whether they began, "landings" runs side by side that fail after landing,
# "crowd" many runs that want the same.
our $theme = '';

# All tasks of the pipeline want the same slot, so that turns are all that decides.
my $alike;

# Limits, which the judge holds weir to.
our %pools = (chaos_one => 1, chaos_four => 4);
our %connections = (chaos_adf => 3, chaos_dbx => 4);

my ($true, $false) = (JSON::PP::true, JSON::PP::false);

# --- kinds ----------------------------------------------------------------------
#
# Each is given the task as weir gets it, what the judge knows of it, the tasks
# before it and the pipelines it may call.

# How likely it is to fail.  Of a load that is about landings what lands
# mostly succeeds, and what comes after it mostly does not.
sub random_percent
{
	my ($known) = @_;
	my $phase = $theme eq 'landings' && $known ? $known->{phase} // '' : '';

	return weighted(0 => 12, 30 => 1) if $phase eq 'land';
	return weighted(0 => 1, 30 => 1, 60 => 3, 100 => 3) if $phase;
	return weighted(0 => 5, 30 => 2, 60 => 1, 100 => 1);
}

# An item says itself how likely it is to fail.
sub sql_task
{
	my ($task, $known) = @_;
	my $percent = $known->{is_item} && chance(0.8) ? '{{item.p}}::text::integer' : random_percent($known);
	my $seconds = $known->{is_item} ? weighted(0 => 6, 0.02 => 2) : weighted(0 => 5, 0.02 => 3, 0.2 => $theme eq 'crowd' ? 8 : 1);
	my $code = one_of('40001', '22012', '53200');

	# Some are too long for their attempt, and some end just about then.
	if (chance(0.1))
	{
		$seconds = $known->{is_item} ? 0.3 : one_of(0.3, 2);
		$task->{timeout} = 0.3;
	}
	$task->{task_timeout} = one_of(0.2, 0.6) if chance(0.06);
	$task->{retry}{on} = { sqlstate => [ one_of('40001', '22', '53200') ] } if chance(0.15);
	$known->{code} = $code;
	$task->{spec} = { sql => "SELECT public.act({{run.id}}, {{task.name}}, {{task.attempt}}, {{row_audit_id}}, $seconds, $percent, '$code')" };
	return;
}

# Of the two kinds that choose a branch: {branches}, those there are.
sub if_task
{
	my ($task, $known) = @_;

	$task->{spec} = { left => one_of('{{params.n}}', 3), op => one_of('>', '<=', '=='), right => 5 };
	$known->{branches} = [ 'true', 'false' ];
	return;
}

sub switch_task
{
	my ($task, $known) = @_;

	$task->{spec} = { on => '{{params.region}}', cases => [ 'north', 'south' ] };
	$known->{branches} = [ 'north', 'south', 'default' ];
	return;
}

# {awaits}: what ends the wait
sub wait_task
{
	my ($task, $known) = @_;

	$known->{awaits} = weighted(for => 3, until => 2, signal => 4, approval => 3, sql => 2);
	my %spec = (
		for => sub { return { for => one_of(0.05, 0.3, 0.8) }; },
		until => sub { return { until => one_of('{{params.at}}', '{{params.at}}', '2001-01-01T00:00:00Z') }; },
		signal => sub { return { signal => one_of('files', 'run {{run.id}}', 'of {{task.name}}') }; },
		approval => sub { return { approval => 'Is {{task.name}} of run {{run.id}} right?' }; },
		sql => sub { { sql => one_of('SELECT public.holds({{run.id}}, 0)', 'SELECT public.holds({{run.id}}, 0.5)', 'SELECT 1 / ({{run.id}} - {{run.id}}) = 1'), every => 1 } });
	$task->{spec} = $spec{ $known->{awaits} }->();
	$task->{timeout} = one_of(0.1, 0.4) if chance(0.12);
	$task->{task_timeout} = 0.5 if chance(0.06);
	return;
}

# {calls}: the pipeline; {detached}: whether its run goes its own way
sub pipeline_task
{
	my ($task, $known, $before, $callable) = @_;
	my $callee = one_of(@$callable);

	$known->{calls} = $callee->{name};
	$known->{detached} = chance(0.15);
	$task->{spec} = {
		pipeline => $callee->{name},
		params => { n => '{{params.n}}', region => one_of('north', 'south', '{{params.region}}') },
		($known->{detached} ? (wait => $false) : chance(0.3) ? (wait => $true) : ()) };
	$task->{timeout} = one_of(0.4, 0.8) if chance(0.1);
	return;
}

sub random_list { my ($n) = @_; return [ map { { n => $_, p => random_percent() } } 1 .. $n ]; }

# {item}: the task for each item, as the judge knows it; {length}: of the
# list, a number or the name of the parameter that says it; {listed}: whether
# the statement that lists the items leaves a row of its own
sub for_each_task
{
	my ($task, $known, $before, $callable) = @_;
	my %item = (is_item => 1, max_attempts => weighted(1 => 3, 2 => 2, 3 => 1), upstream => [], run_if => $known->{run_if});
	my %item_task = (retry => { max_attempts => $item{max_attempts}, initial_delay => one_of('10 milliseconds', '100 milliseconds') });
	my @callers = @$callable ? (pipeline => 1.5) : ();

	$item{kind} = weighted(sql => 8, noop => 1, http => 2, databricks_job => 1.5, databricks_sql => 1, adf_pipeline => 1, wait => 1.5, if => 0.5, @callers);
	$item_task{kind} = $item{kind};
	kind_task($item{kind}, \%item_task, \%item, $before, $callable);
	$item{retry_on} = $item_task{retry}{on};
	$item{task_timeout} = $item_task{task_timeout};
	$item{spec} = $item_task{spec};
	$item{connection} = $item_task{connection};
	$item{on_uncertain} = $item_task{on_uncertain};
	$known->{item} = \%item;
	$known->{concurrency} = weighted(1 => 2, 2 => 2, 4 => 1, 10 => 1);

	my $items = random_list(weighted(0 => 1, 1 => 2, 3 => 4, 5 => 2));
	$known->{length} = @$items;
	if ($item{kind} =~ /^(sql|noop)$/)
	{
		my $how = weighted(literal => 2, params => 2, sql => 3);

		if ($how eq 'params')
		{
			$items = '{{params.list}}';
			$known->{length} = 'list';
		}
		elsif ($how eq 'sql')
		{
			$items = { sql => 'SELECT * FROM public.list({{run.id}}, {{task.name}}, {{task.attempt}}, {{row_audit_id}}, {{params.n}}::text::integer, ' . random_percent() . ')' };
			$known->{length} = 'n';
			$known->{listed} = 1;
		}
		elsif ($theme ne 'crowd' && chance(0.3))
		{
			$items = random_list(25);
			$known->{length} = 25;
		}
	}
	$task->{spec} = { items => $items, task => \%item_task, concurrency => $known->{concurrency} };
	return;
}

my %kinds = (
	noop => sub { $_[0]{spec} = {}; },
	sql => \&sql_task,
	%cloud_kinds,
	if => \&if_task,
	switch => \&switch_task,
	wait => \&wait_task,
	pipeline => \&pipeline_task,
	for_each => \&for_each_task);

sub kind_task { my ($kind, @given) = @_; $kinds{$kind}->(@given); return; }

# --- what the judge asks ----------------------------------------------------------

# The branch that a task must choose with these parameters.
sub expected_branch
{
	my ($known, $params) = @_;
	my $spec = $known->{spec};

	if ($known->{kind} eq 'switch')
	{
		my $on = $params->{region};
		return (grep { $_ eq $on } @{ $spec->{cases} }) ? $on : 'default';
	}
	my $left = $spec->{left} eq '{{params.n}}' ? $params->{n} : $spec->{left};
	my $holds = $spec->{op} eq '>' ? $left > $spec->{right} : $spec->{op} eq '<=' ? $left <= $spec->{right} : $left == $spec->{right};
	return $holds ? 'true' : 'false';
}

# How many items its list has; undef if it is none.
sub expected_length
{
	my ($known, $params) = @_;

	return $known->{length} if $known->{length} =~ /^\d+$/;
	return $params->{n} if $known->{length} eq 'n';
	return ref $params->{list} eq 'ARRAY' ? scalar @{ $params->{list} } : undef;
}

# --- pipelines --------------------------------------------------------------------

sub random_dependencies
{
	my ($task, $known, $before, $plainly) = @_;
	my %upstream = map { $_->{name} => $_ } map { one_of(@$before) } 1 .. (@$before ? weighted(0 => $theme eq 'crowd' ? 12 : 2, 1 => 5, 2 => 3, 4 => 1) : 0);

	foreach my $name (sort keys %upstream)
	{
		my $condition = $plainly ? 'success' : weighted(success => 14, done => 2, failed => 2, skipped => 1);
		my $branches = $upstream{$name}{branches};
		my $branch = $branches && $condition eq 'success' && chance(0.8) ? one_of(@$branches) : undef;

		push @{ $known->{upstream} }, { task => $name, condition => $condition, branch => $branch };
		push @{ $task->{depends_on} }, $condition eq 'success' && !defined $branch && chance(0.7) ? $name
		  : { task => $name, ($condition ne 'success' ? (condition => $condition) : ()), (defined $branch ? (branch => $branch) : ()) };
	}
	return;
}

# To a task that is there for failures, one that it depends on "failed" is a
# failure; and it must be able to hear of one.
sub hear_of_failures
{
	my ($task, $known) = @_;
	my @upstream = @{ $known->{upstream} };
	my $deaf = grep { $_->{condition} eq 'done' } @upstream;

	return unless $known->{run_if} =~ /_failed$/ && $known->{run_if} ne 'none_failed';
	if ($deaf && ($known->{run_if} eq 'all_failed' || $deaf == @upstream))
	{
		$task->{run_if} = $known->{run_if} = 'all_done';
		return;
	}
	$_->{condition} = 'success' foreach grep { $_->{condition} eq 'failed' } @upstream;
	return;
}

# A for_each says what its items need.
sub random_pool
{
	my ($task, $known) = @_;
	my $kind = ($known->{item} // $known)->{kind};

	if ($alike)
	{
		$task->{pool} = $known->{pool} = 'chaos_one';
		$known->{pool_slots} = 1;
		return;
	}
	return unless $kind =~ /^(sql|http|adf_pipeline|databricks_\w+|webhook|wait)$/ && chance($theme eq 'crowd' ? 0.7 : 0.18);
	$task->{pool} = $known->{pool} = one_of(sort keys %pools);
	$known->{pool_slots} = 1;
	return unless $known->{pool} eq 'chaos_four' && chance(0.4);
	$task->{pool_slots} = $known->{pool_slots} = one_of(2, 3);
	return;
}

sub random_task
{
	my ($no, $landing, $before, $callable) = @_;
	my @callers = @$callable ? (pipeline => 5) : ();
	# Of a load that is about landings, what lands and what fails first after it.
	my $plainly = $theme eq 'landings' && $no <= $landing + 1 && ($no > $landing || chance(0.8));
	my %known = (
		name => "t$no",
		no => $no,
		kind => $alike ? 'sql'
		: $plainly ? weighted(sql => 4, noop => $no <= $landing ? 2 : 0)
		: $theme eq 'crowd' && chance(0.8) ? weighted(sql => 5, http => 1, databricks_job => 1, for_each => 3)
		: $theme eq 'unknown' && chance(0.8) ? weighted(http => 4, databricks_serving => 3, databricks_sql => 3, databricks_job => 2)
		: weighted(noop => 4, sql => 6, http => 4, adf_pipeline => 2, databricks_job => 2, databricks_notebook => 1, databricks_sql => 1,
			databricks_serving => 1, webhook => 1, if => 1, switch => 1, wait => 4, for_each => 4, @callers),
		phase => $no <= $landing ? 'land' : one_of('transform', 'publish'),
		run_if => $plainly || chance(0.65) ? 'all_success'
		: one_of(qw(all_done none_failed at_least_one_success at_least_one_failed all_failed always)),
		enabled => !chance(0.06),
		max_attempts => weighted(1 => 3, 2 => 2, 3 => 1),
		upstream => []);
	my %task = map { $_ => $known{$_} } qw(name kind phase);

	$task{retry} = { max_attempts => $known{max_attempts}, initial_delay => one_of('10 milliseconds', '100 milliseconds'),
		(chance(0.3) ? (backoff => one_of('fixed', 'linear'), jitter => 0) : ()) };
	kind_task($known{kind}, \%task, \%known, $before, $callable);
	$known{retry_on} = $task{retry}{on};
	$known{task_timeout} = $task{task_timeout};
	$known{spec} = $task{spec};
	$known{connection} = $task{connection};
	$known{on_uncertain} = $task{on_uncertain};
	$task{run_if} = $known{run_if} if $known{run_if} ne 'all_success' || chance(0.2);
	$task{enabled} = $false unless $known{enabled};
	$task{priority} = one_of(-5, 5) if !$alike && chance($theme eq 'crowd' ? 0.5 : 0.1);
	random_pool(\%task, \%known);
	random_dependencies(\%task, \%known, $alike ? [] : $before, $plainly);
	hear_of_failures(\%task, \%known);
	return (\%task, \%known);
}

# {name, json, on_failure, max_concurrent_runs, max_concurrent_tasks, keeps, tasks => [{name, no, kind, spec,
# phase, run_if, enabled, max_attempts, upstream, ...}]}
sub random_pipeline
{
	my ($name, @callable) = @_;
	my $n = weighted(1 => 1, 2 + int(rand(4)) => 4, 6 + int(rand(10)) => 2);
	my $landing = chance(0.4) ? int(rand($n)) : 0;
	if ($theme eq 'landings')
	{
		$n += 2;
		$landing = 1 + int(rand(3));
		$landing = $n - 1 if $landing >= $n;
	}
	$n = 2 + int(rand(5)) if $theme eq 'crowd';
	$alike = $theme eq 'crowd' && chance(0.4);
	my (@tasks, @known);

	foreach my $no (1 .. $n)
	{
		my ($task, $known) = random_task($no, $landing, \@known, \@callable);
		push @tasks, $task;
		push @known, $known;
	}
	my %pipeline = (
		name => $name,
		tasks => \@known,
		on_failure => chance(0.3) ? 'fail_fast' : 'continue',
		max_concurrent_runs => $theme eq 'crowd' ? one_of(1, 6, 6, 12) : weighted(1 => $theme eq 'landings' ? 0 : 3, 2 => 1, 4 => 1),
		max_concurrent_tasks => chance($theme eq 'crowd' ? 0.4 : 0.25) ? one_of(1, 2, 3) : undef,
		on_overlap => weighted(queue => { landings => 12, crowd => 40 }->{$theme} // 4, skip => 1, cancel_older => 1),
		keeps => chance(0.4) ? one_of(1, 1, 2, 4) : undef,
		list => random_list(3));
	my %definition = (
		parameters => {
			n => { type => 'bigint', default => 3 },
			region => { type => 'text', default => 'south' },
			at => { type => 'text', default => '2001-01-01T00:00:00Z' },
			list => { type => 'json', default => $pipeline{list} } },
		tasks => \@tasks,
		on_failure => $pipeline{on_failure},
		max_concurrent_runs => $pipeline{max_concurrent_runs},
		(defined $pipeline{max_concurrent_tasks} ? (max_concurrent_tasks => $pipeline{max_concurrent_tasks}) : ()),
		on_overlap => $pipeline{on_overlap},
		(defined $pipeline{keeps} ? (retention => { runs => $pipeline{keeps}, age => 0 }) : ()),
		(chance(0.1) ? (timeout => one_of('500 milliseconds', '1 second')) : ()));
	$pipeline{json} = JSON::PP->new->canonical->encode(\%definition);
	return \%pipeline;
}

1;
