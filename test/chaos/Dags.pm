# Dags.pm - random pipelines, as definitions for weir and as what the judge
# knows of them.  Only rand() decides: the same seed makes the same ones.

package Dags;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use JSON::PP;

our @EXPORT = qw(one_of weighted chance random_pipeline);

my ($true, $false) = (JSON::PP::true, JSON::PP::false);

sub one_of { return $_[ int(rand(@_)) ]; }
sub chance { return rand() < $_[0]; }

# weighted(a => 3, b => 1): a three times of four
sub weighted
{
	my @pairs = @_;
	my $sum = 0;

	$sum += $pairs[ 2 * $_ + 1 ] foreach (0 .. $#pairs / 2);
	my $at = rand($sum);
	while (@pairs > 2)
	{
		$at -= $pairs[1];
		last if $at < 0;
		splice(@pairs, 0, 2);
	}
	return $pairs[0];
}

sub sql_task
{
	my ($task) = @_;
	my $percent = weighted(0 => 5, 30 => 2, 60 => 1, 100 => 1);
	my $seconds = weighted(0 => 5, 0.02 => 3, 0.2 => 1);
	my $code = one_of('40001', '22012', '53200');

	# Some are too long for their attempt, and some end just about then.
	if (chance(0.1))
	{
		$seconds = one_of(0.3, 2);
		$task->{timeout} = 0.3;
	}
	$task->{spec} = { sql => "SELECT public.act({{run.id}}, {{task.name}}, {{task.attempt}}, $seconds, $percent, '$code')" };
	return;
}

sub http_task
{
	my ($task) = @_;

	$task->{connection} = 'chaos_http';
	$task->{spec} = weighted(
		{ method => 'POST', path => '/json/effect', body => { task => '{{task.name}}' }, idempotent => $true } => 4,
		{ method => 'POST', path => '/json/once', body => { task => '{{task.name}}' } } => 2,
		{ path => '/delay/150' } => 2,
		{ path => '/status/404' } => 1);
	return;
}

sub adf_task
{
	my ($task) = @_;

	$task->{connection} = 'chaos_adf';
	$task->{spec} = weighted(
		{ pipeline => 'wait', parameters => { seconds => one_of(1, 5, 20) } } => 4,
		{ pipeline => 'copy_flights', parameters => { row_audit_id => '{{row_audit_id}}', limit => 10 } } => 1,
		{ pipeline => 'fail' } => 1);
	$task->{timeout} = one_of(0.4, 0.8) if chance(0.1);
	return;
}

sub job_task
{
	my ($task) = @_;

	$task->{connection} = 'chaos_dbx';
	$task->{spec} = weighted(
		{ job_id => 102, job_parameters => { seconds => one_of(1, 5, 20) } } => 4,
		{ job_id => 103 } => 1);
	$task->{spec}{repair} = $false if chance(0.3);
	$task->{timeout} = one_of(0.4, 0.8) if chance(0.1);
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

my %kinds = (
	noop => sub { $_[0]{spec} = {}; },
	sql => \&sql_task,
	http => \&http_task,
	adf_pipeline => \&adf_task,
	databricks_job => \&job_task,
	if => \&if_task,
	switch => \&switch_task);

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

sub random_dependencies
{
	my ($task, $known, $before) = @_;
	my %upstream = map { $_->{name} => $_ } map { one_of(@$before) } 1 .. (@$before ? weighted(0 => 2, 1 => 5, 2 => 3, 4 => 1) : 0);

	foreach my $name (sort keys %upstream)
	{
		my $condition = weighted(success => 14, done => 2, failed => 2, skipped => 1);
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

# {name, json, on_failure, tasks => [{name, kind, spec, phase, run_if, enabled, upstream}]}
sub random_pipeline
{
	my ($name) = @_;
	my $n = weighted(1 => 1, 2 + int(rand(4)) => 4, 6 + int(rand(10)) => 2);
	my $landing = chance(0.4) ? int(rand($n)) : 0;
	my (@tasks, @known);

	foreach my $no (1 .. $n)
	{
		my %known = (
			name => "t$no",
			no => $no,
			kind => weighted(noop => 5, sql => 6, http => 3, adf_pipeline => 2, databricks_job => 2, if => 1, switch => 1),
			phase => $no <= $landing ? 'land' : one_of('transform', 'publish'),
			run_if => chance(0.65) ? 'all_success'
			: one_of(qw(all_done none_failed at_least_one_success at_least_one_failed all_failed always)),
			enabled => !chance(0.06),
			max_attempts => weighted(1 => 3, 2 => 2, 3 => 1),
			upstream => []);
		my %task = map { $_ => $known{$_} } qw(name kind phase);

		$kinds{ $known{kind} }->(\%task, \%known);
		$known{spec} = $task{spec};
		$task{run_if} = $known{run_if} if $known{run_if} ne 'all_success' || chance(0.2);
		$task{enabled} = $false unless $known{enabled};
		$task{retry} = { max_attempts => $known{max_attempts}, initial_delay => one_of('10 milliseconds', '100 milliseconds') };
		random_dependencies(\%task, \%known, \@known);
		hear_of_failures(\%task, \%known);
		push @tasks, \%task;
		push @known, \%known;
	}
	my %pipeline = (
		name => $name,
		tasks => \@known,
		on_failure => chance(0.3) ? 'fail_fast' : 'continue',
		max_concurrent_runs => weighted(1 => 3, 2 => 1, 4 => 1));
	my %definition = (
		parameters => { n => { type => 'bigint', default => 3 }, region => { type => 'text', default => 'south' } },
		tasks => \@tasks,
		on_failure => $pipeline{on_failure},
		max_concurrent_runs => $pipeline{max_concurrent_runs},
		on_overlap => weighted(queue => 4, skip => 1, cancel_older => 1),
		(chance(0.1) ? (timeout => one_of('500 milliseconds', '1 second')) : ()));
	$pipeline{json} = JSON::PP->new->canonical->encode(\%definition);
	return \%pipeline;
}

1;
