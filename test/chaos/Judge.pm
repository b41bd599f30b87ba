# Judge.pm - says what is wrong with what happened in a cycle of dags.pl.
#
# It plays the journal again, statement by statement, beside the definitions
# that the test made, and decides by what doc/pipelines.md and doc/restart.md
# say; nothing here was taken from the code.  A statement is judged by the
# statuses after it, a transaction by what it leaves.

package Judge;

use strict;
use warnings FATAL => 'all';

use JSON::PP;

use Dags;

my $canonical = JSON::PP->new->canonical;
my %is_final = map { $_ => 1 } qw(succeeded failed timed_out cancelled blocked skipped reused aborted lost);
my %is_bad = map { $_ => 1 } qw(failed timed_out cancelled);

my %legal = (
	run => {
		'' => 'queued',
		queued => 'running skipped cancelled aborted failed',
		running => 'succeeded failed timed_out cancelled cancelling aborted',
		cancelling => 'cancelled succeeded failed timed_out',
		map { $_ => 'running' } qw(succeeded failed timed_out cancelled) },
	task => {
		'' => 'waiting ready reused skipped',
		waiting => 'ready blocked cancelled skipped reused',
		ready => 'running failed cancelled blocked skipped',
		running => 'ready succeeded failed timed_out cancelled',
		map { $_ => 'waiting ready' } qw(succeeded failed timed_out cancelled blocked skipped) },
	attempt => {
		'' => 'intended succeeded',
		intended => 'started succeeded failed timed_out cancelled lost',
		started => 'succeeded failed timed_out cancelled lost' });

# What a task may become when its attempt ended so.
my %follows = (
	succeeded => 'succeeded',
	failed => 'ready failed',
	timed_out => 'ready timed_out',
	cancelled => 'cancelled ready',
	lost => 'ready failed cancelled');

# Is the task there for failures, or always?
sub reacts
{
	my ($known) = @_;

	return among($known->{run_if}, 'at_least_one_failed all_failed always')
	  || grep { $_->{condition} eq 'failed' } @{ $known->{upstream} };
}

sub among { my ($word, $list) = @_; return " $list " =~ / \Q$word\E /; }

# facts: public.facts(); pipelines: name => as from Dags; ledger: of the cloud
sub new
{
	my ($class, %given) = @_;
	return bless { %given, wrong => [], runs => {}, states => {}, noted => {} }, $class;
}

sub wrong { my ($self, $text) = @_; push @{ $self->{wrong} }, $text; return; }

# All that is wrong.
sub verdict
{
	my ($self) = @_;

	$self->play;
	$self->compare;
	$self->work;
	return @{ $self->{wrong} };
}

# --- the journal --------------------------------------------------------------

# Does the event hold the pipeline's state?  A run that is only asked for does not.
sub moves_pipeline { my ($event) = @_; return $event->{what} eq 'state' || ($event->{what} eq 'run' && defined $event->{old}); }

sub play
{
	my ($self) = @_;
	my (@statements, %last);

	foreach my $row (@{ $self->{facts}{journal} })
	{
		my %event;
		@event{qw(no xid what run_id task_no attempt_no old new more)} = @$row;
		push @statements, [] unless @statements && $statements[-1][0]{no} == $event{no};
		push @{ $statements[-1] }, \%event;
		$last{"$event{xid} $event{run_id}"} = $event{no} if defined $event{run_id};
		$last{"$event{xid} $event{more}{pipeline}"} = $event{no} if moves_pipeline(\%event);
	}
	foreach my $statement (@statements)
	{
		my %runs;

		$self->apply($_) foreach @$statement;
		foreach my $event (@$statement)
		{
			$self->judge_task($event) if $event->{what} eq 'task';
			$self->judge_run($event) if $event->{what} eq 'run' && defined $event->{old};
			$runs{ $event->{run_id} } = $event->{xid} if defined $event->{run_id};
		}
		foreach my $id (sort keys %runs)
		{
			$self->judge_commit($id, $runs{$id}) if $last{"$runs{$id} $id"} == $statement->[0]{no};
		}
		foreach my $event (grep { moves_pipeline($_) } @$statement)
		{
			$self->judge_state($event) if $last{"$event->{xid} $event->{more}{pipeline}"} == $event->{no};
		}
	}
	return;
}

sub run_of
{
	my ($self, $id) = @_;
	return $self->{runs}{$id} //= { id => $id, status => '', tasks => {} };
}

sub apply
{
	my ($self, $event) = @_;
	my ($what, $old, $new) = ($event->{what}, $event->{old} // '', $event->{new} // '');

	if ($what eq 'state')
	{
		$self->{noted}{ $event->{more}{pipeline} } = $event->{more};
		return;
	}
	my $run = $self->run_of($event->{run_id});
	my $name = "$what of run $event->{run_id}" . ($what eq 'run' ? '' : " task $event->{task_no}")
	  . ($what eq 'attempt' ? " attempt $event->{attempt_no}" : '');

	$self->wrong("$name: $old became $new") unless among($new, $legal{$what}{$old} // '');
	if ($what eq 'run')
	{
		$run->{$_} = $event->{more}{$_} foreach grep { defined $event->{more}{$_} } keys %{ $event->{more} };
		$run->{definition} = $self->{pipelines}{ $run->{pipeline} };
		$self->wrong("$name: it was $run->{status}, not $old") if $old ne $run->{status};
		$run->{status} = $new;
		$run->{decides}{ $event->{xid} } = 1;
	}
	elsif ($what eq 'task')
	{
		my $task = $run->{tasks}{ $event->{task_no} } //= { status => '', tries => 0 };

		$self->wrong("$name: it was $task->{status}, not $old") if $old ne $task->{status};
		$task->{status} = $new;
		$task->{reason} = $event->{more}{reason};
		$task->{branch} = $event->{more}{branch} if defined $event->{more}{branch};
		$run->{decides}{ $event->{xid} } = 1 if $new ne 'running';
		push @{ $run->{left}{ $event->{xid} } }, $event if $old eq 'running' || $new eq 'running';
		$task->{tries} = 0 if $is_final{$old};
	}
	else
	{
		push @{ $run->{tried}{ $event->{xid} } }, $event;
		if ($is_final{$new} && $new ne 'lost')
		{
			my $most = $run->{definition}{tasks}[ $event->{task_no} - 1 ]{max_attempts};
			my $tries = ++$run->{tasks}{ $event->{task_no} }{tries};

			$self->wrong("$name: it is try $tries of $most") if $tries > $most;
		}
	}
	return;
}

# --- flow ---------------------------------------------------------------------

# What a dependency contributes: met, failed, blocked or skipped; undef while
# its upstream task has not ended.
sub contribution
{
	my ($run, $dependency) = @_;
	my ($no) = $dependency->{task} =~ /^t(\d+)$/;
	my $upstream = $run->{tasks}{$no};
	my $status = $upstream->{status};
	my $as_if = $status eq 'reused' || ($status eq 'skipped' && $upstream->{reason} ne 'condition');
	my $condition = $dependency->{condition};

	return undef unless $is_final{$status};
	$status = 'succeeded' if $as_if;
	return 'met' if $condition eq 'done'
	  || ($condition eq 'failed' && $is_bad{$status})
	  || ($condition eq 'skipped' && $status eq 'skipped')
	  || ($condition eq 'success' && $status eq 'succeeded'
		&& (!defined $dependency->{branch} || $as_if || ($upstream->{branch} // '') eq $dependency->{branch}));
	return $is_bad{$status} ? 'failed' : $status eq 'blocked' ? 'blocked' : 'skipped';
}

# What becomes of a task whose upstream tasks have all ended; undef before.
sub decision
{
	my ($run, $known) = @_;
	my %n = map { $_ => 0 } qw(met failed blocked skipped);
	my $run_if = $known->{run_if};

	foreach my $dependency (@{ $known->{upstream} })
	{
		my $result = contribution($run, $dependency) // return undef;
		$n{$result}++;
	}
	my $all = @{ $known->{upstream} };
	my $bad = $n{failed} + $n{blocked};

	return 'ready' unless $all;
	if ($run_if eq 'at_least_one_failed') { return $bad > 0 ? 'ready' : 'skipped'; }
	if ($run_if eq 'all_failed') { return $bad == $all ? 'ready' : 'skipped'; }
	my $runs =
	    $run_if eq 'all_success' ? $n{met} == $all
	  : $run_if eq 'all_done' ? $n{met} + $n{failed} > 0
	  : $run_if eq 'none_failed' ? $bad == 0 && $n{met} > 0
	  : $run_if eq 'at_least_one_success' ? $n{met} > 0
	  : 1;
	return $runs ? 'ready' : $bad > 0 ? 'blocked' : 'skipped';
}

# Blocked before everything upstream has ended: one failure is enough.
sub is_lost_already
{
	my ($run, $known) = @_;

	return among($known->{run_if}, 'all_success none_failed')
	  && grep { among(contribution($run, $_) // '', 'failed blocked') } @{ $known->{upstream} };
}

sub fails_fast
{
	my ($run, $known) = @_;

	return $run->{definition}{on_failure} eq 'fail_fast' && !reacts($known)
	  && grep { $is_bad{ $_->{status} } } values %{ $run->{tasks} };
}

sub judge_task
{
	my ($self, $event) = @_;
	my $run = $self->{runs}{ $event->{run_id} };
	my $known = $run->{definition}{tasks}[ $event->{task_no} - 1 ];
	my ($old, $new) = ($event->{old} // '', $event->{new});
	my $reason = $event->{more}{reason} // '';
	my $name = "run $run->{id} of $run->{pipeline} task $known->{name} ($known->{run_if}): $old became $new";
	my $decision = decision($run, $known);

	if ($old eq '' && among($new, 'skipped reused'))
	{
		my $selected = $run->{selected};

		$self->wrong("$name, reason $reason") if $new eq 'skipped' && $reason ne 'condition'
		  && $reason ne (!$known->{enabled} ? 'disabled' : $selected && !grep({ $_ eq $known->{name} } @$selected) ? 'not_selected' : '');
		$self->wrong("$name in a start $run->{start} of phase $known->{phase}") if $new eq 'reused'
		  && ($run->{start} ne 'D' || $known->{phase} ne 'land');
	}
	elsif ($old eq '' && (!$known->{enabled} || ($run->{selected} && !grep { $_ eq $known->{name} } @{ $run->{selected} })))
	{
		$self->wrong("$name, but it is disabled or not selected");
	}
	elsif (among($old, 'waiting') && among($new, 'ready blocked skipped') || ($old eq '' && $new eq 'ready'))
	{
		$self->wrong("$name, expected " . ($decision // 'waiting'))
		  unless ($decision // '') eq $new
		  || ($new eq 'blocked' && (is_lost_already($run, $known) || fails_fast($run, $known)));
	}
	elsif ($old eq 'ready' && among($new, 'blocked skipped'))
	{
		$self->wrong("$name without a failure") unless $new eq 'blocked' && fails_fast($run, $known);
	}
	elsif (among($old, 'waiting ready') && $new eq 'cancelled')
	{
		$self->wrong("$name in a run that is $run->{status}") unless among($run->{status}, 'cancelling cancelled');
	}
	elsif ($is_final{$old})
	{
		$self->wrong("$name in a run that is $run->{status}") unless $run->{status} eq 'running';
	}
	elsif ($new eq 'succeeded' && $known->{branches})
	{
		my %params = (n => 3, region => 'south', %{ $run->{params} // {} });
		my $expected = Dags::expected_branch($known, \%params);

		$self->wrong("$name and chose $event->{more}{branch}, expected $expected") if ($event->{more}{branch} // '') ne $expected;
	}
	return;
}

# --- runs and pipelines ---------------------------------------------------------

# Did a task that is there for failures succeed right below this one?
sub is_handled
{
	my ($run, $no) = @_;

	foreach my $known (@{ $run->{definition}{tasks} })
	{
		next unless $run->{tasks}{ $known->{no} }{status} eq 'succeeded';
		foreach my $dependency (grep { $_->{task} eq "t$no" } @{ $known->{upstream} })
		{
			return 1 if $dependency->{condition} eq 'failed' || among($known->{run_if}, 'at_least_one_failed all_failed');
		}
	}
	return 0;
}

sub expected_end
{
	my ($run, $old) = @_;
	my %n = map { $_ => 0 } qw(failed cancelled blocked);

	foreach my $no (keys %{ $run->{tasks} })
	{
		my $status = $run->{tasks}{$no}{status};

		$n{blocked}++ if $status eq 'blocked';
		next if !$is_bad{$status} || is_handled($run, $no);
		$n{ $status eq 'cancelled' ? 'cancelled' : 'failed' }++;
	}
	return 'succeeded' unless grep { $_ } values %n;
	return $run->{reason} =~ /^cancelled by |replaces it$/ ? 'cancelled' : 'timed_out' if $old eq 'cancelling';
	return $n{failed} == 0 && $n{cancelled} > 0 ? 'cancelled' : 'failed';
}

# P, R or D
sub expected_next
{
	my ($run) = @_;
	my @landing = grep { $_->{phase} eq 'land' && $run->{tasks}{ $_->{no} }{status} ne 'skipped' } @{ $run->{definition}{tasks} };
	my $landed = !grep { !among($run->{tasks}{ $_->{no} }{status}, 'succeeded reused') } @landing;

	return 'P' if $run->{status} eq 'succeeded';
	return $landed && (@landing || $run->{start} eq 'D') ? 'D' : 'R';
}

# The landing this run resumes: one that nobody resumes, and where runs go on
# side by side, of the run that it restarts or of one with the same parameters.
sub landing_for
{
	my ($self, $run, $state) = @_;
	my %taken = map { ($_->{audit} // 0) => 1 }
	  grep { $_ != $run && $_->{pipeline} eq $run->{pipeline} && among($_->{status}, 'running cancelling') } values %{ $self->{runs} };
	my $params = $canonical->encode($run->{params} // {});
	my $landings = $state->{landings};
	my $own = $run->{restart_of} ? $self->{runs}{ $run->{restart_of} }{audit} // 0 : 0;
	my %fit = map { $_ => ($_ == $own ? 2 : 0) + ($landings->{$_} eq $params ? 1 : 0) } keys %$landings;
	my @free = sort { $fit{$b} <=> $fit{$a} || $a <=> $b } grep { !$taken{$_} } keys %$landings;

	@free = grep { $fit{$_} } @free if $run->{definition}{max_concurrent_runs} > 1;
	return $free[0];
}

sub judge_run
{
	my ($self, $event) = @_;
	my $run = $self->{runs}{ $event->{run_id} };
	my $state = $self->{states}{ $run->{pipeline} } //= { next => 'P' };
	my ($old, $new) = ($event->{old}, $event->{new});
	my $name = "run $run->{id} of $run->{pipeline}: $old became $new";

	if ($old eq 'queued' && $new eq 'running')
	{
		my $landing = $state->{next} eq 'D' && !$run->{backfill} ? $self->landing_for($run, $state) : undef;
		my $start = $run->{backfill} || $state->{next} eq 'P' || ($state->{next} eq 'D' && !defined $landing) ? 'E' : $state->{next};
		my $audit = $landing // $run->{id};

		$self->wrong("$name as $run->{start} with $run->{audit}, expected $start with $audit")
		  unless $run->{start} eq $start && $run->{audit} == $audit;
		$state->{last} = $run->{id} unless $run->{apart};
		my @active = grep { among($_->{status}, 'running cancelling') && $_->{pipeline} eq $run->{pipeline} } values %{ $self->{runs} };
		$self->wrong("$name, and " . scalar(@active) . ' are active') if @active > $run->{definition}{max_concurrent_runs};
	}
	elsif ($is_final{$new} && $old ne 'queued')
	{
		my $expected = expected_end($run, $old);
		my $next = expected_next($run);

		$self->wrong("$name, expected $expected (" . join(' ', map { "t$_ $run->{tasks}{$_}{status}" } sort { $a <=> $b } keys %{ $run->{tasks} }) . ')')
		  if $new ne $expected;
		return if $run->{apart};
		$self->wrong("$name with $event->{more}{next}, expected $next") if $event->{more}{next} ne $next;
		$run->{said} = $next;
		$state->{landings}{ $run->{audit} } = $canonical->encode($run->{params} // {}) if $next eq 'D';
		delete $state->{landings}{ $run->{audit} } if $next ne 'D';
		my ($oldest) = sort { $a <=> $b } keys %{ $state->{landings} };
		my $has_the_word = $state->{last} == $run->{id} || ($new ne 'succeeded' && $state->{next} eq 'P');
		my $latest = $self->{runs}{ $state->{last} };
		$state->{next} =
			defined $oldest ? 'D'
		  : $has_the_word ? $next
		  : $state->{next} ne 'D' ? $state->{next}
		  : $is_final{ $latest->{status} } ? $latest->{said}
		  :                                  'P';
		$state->{origin} = $oldest;
		$state->{success} = $run->{id} if $new eq 'succeeded' && $state->{last} == $run->{id};
	}
	return;
}

# At the end of a transaction that started or ended a run, or wrote the state.
sub judge_state
{
	my ($self, $event) = @_;
	my $pipeline = $event->{more}{pipeline};
	my $expected = $self->{states}{$pipeline} // return;
	my $found = $self->{noted}{$pipeline} // return;

	foreach my $key (qw(next last origin success))
	{
		my ($a, $b) = map { $_->{$key} // 'null' } $expected, $found;
		$self->wrong("pipeline $pipeline: $key is $b, expected $a, in transaction $event->{xid}") if $a ne $b;
	}
	return;
}

# What a transaction leaves of a run, once it has decided something: such
# transactions come one after the other.
sub judge_commit
{
	my ($self, $id, $xid) = @_;
	my $run = $self->{runs}{$id};
	my %ended = map { ("$_->{task_no} $_->{attempt_no}" => $_) } grep { $is_final{ $_->{new} } } @{ $run->{tried}{$xid} // [] };
	my %begun = map { ("$_->{task_no} $_->{attempt_no}" => 1) } grep { !defined $_->{old} } @{ $run->{tried}{$xid} // [] };
	my $name = "run $id of $run->{pipeline} after transaction $xid";
	my $failure;

	foreach my $event (@{ $run->{left}{$xid} // [] })
	{
		my $key = "$event->{task_no} $event->{attempt_no}";
		my $attempt = $ended{$key};

		if ($event->{new} eq 'running')
		{
			$self->wrong("$name: task and attempt $key runs without an intent") unless $begun{$key};
			next;
		}
		$self->wrong("$name: task and attempt $key became $event->{new}, its attempt " . ($attempt ? $attempt->{new} : 'did not end'))
		  unless $attempt && among($event->{new}, $follows{ $attempt->{new} });
		delete $ended{$key};
		$failure = 1 if $is_bad{ $event->{new} };
	}
	$self->wrong("$name: attempt ended without its task: $_") foreach sort keys %ended;

	return if $run->{status} eq 'queued' || !%{ $run->{tasks} };	# did not start
	return unless $run->{decides}{$xid};	# what only starts tasks may be in the middle of another
	my @live = grep { !$is_final{ $run->{tasks}{ $_->{no} }{status} // '' } } @{ $run->{definition}{tasks} };
	if ($is_final{ $run->{status} })
	{
		$self->wrong("$name: $run->{status}, but $_->{name} is " . ($run->{tasks}{ $_->{no} }{status} // 'not there')) foreach @live;
		return;
	}
	$self->wrong("$name: all tasks have ended, but it is $run->{status}") unless @live;
	foreach my $known (@live)
	{
		my $status = $run->{tasks}{ $known->{no} }{status};

		next if $status eq 'running';
		$self->wrong("$name: $known->{name} is $status, but the run is cancelling") if $run->{status} eq 'cancelling';
		$self->wrong("$name: $known->{name} waits, but is to be " . decision($run, $known))
		  if $status eq 'waiting' && defined decision($run, $known);
		$self->wrong("$name: $known->{name} is $status after a failure that ends the run")
		  if $failure && $run->{definition}{on_failure} eq 'fail_fast' && !reacts($known);
	}
	return;
}

# --- the end --------------------------------------------------------------------

# What was played is what is there, and nothing is left over.
sub compare
{
	my ($self) = @_;
	my $facts = $self->{facts};

	foreach my $id (sort keys %{ $facts->{runs} })
	{
		$self->wrong("run $id is there, but its trigger was not committed") unless $facts->{asked}{$id};
		$self->wrong("run $id is $facts->{runs}{$id} at the end") unless $is_final{ $facts->{runs}{$id} };
		my $played = $self->run_of($id)->{status};
		$self->wrong("run $id is $facts->{runs}{$id}, but became $played") if $facts->{runs}{$id} ne $played;
	}
	foreach my $id (sort keys %{ $facts->{asked} })
	{
		$self->wrong("run $id ($facts->{asked}{$id}) was committed, but is not there") unless $facts->{runs}{$id};
	}
	foreach my $id (sort keys %{ $self->{runs} })
	{
		$self->wrong("run $id of an earlier cycle changed") unless $facts->{runs}{$id};
	}
	foreach my $task (@{ $facts->{task_names} })
	{
		my ($id, $no, $name, $status) = @$task;
		my $played = $self->run_of($id)->{tasks}{$no}{status} // 'nothing';
		$self->wrong("run $id task $name is $status, but became $played") if $status ne $played;
	}
	foreach my $pipeline (sort keys %{ $self->{states} })
	{
		my ($expected, $found) = map { my $s = $_; join ' ', map { $s->{$_} // 'null' } qw(next last origin success) }
		  $self->{states}{$pipeline}, $facts->{states}{$pipeline};
		$self->wrong("pipeline $pipeline is $found, expected $expected") if $expected ne $found;
	}
	foreach my $what (qw(open_attempts live_tasks requests))
	{
		$self->wrong("$what: $facts->{$what} are left") if $facts->{$what} > 0;
	}
	my $workers = $facts->{processes}{'weir SQL worker'} // 0;
	my $slots = $facts->{status}{sql_workers} // 'nothing';
	$self->wrong("$workers SQL workers, but their slots say $slots")
	  unless $slots =~ /0 busy, $workers idle, 0 starting in this database; $workers of/;
	foreach my $process ('weir conductor', 'weir launcher')
	{
		my $n = $facts->{processes}{$process} // 0;
		$self->wrong("$n of $process") if $n != 1;
	}
	return;
}

# Work, here and outside: each attempt's at most once, each success's once,
# and none that nobody intended.
sub work
{
	my ($self) = @_;
	my $facts = $self->{facts};
	my (%effects, %started, %repairs, %tokens, %repairing);

	$effects{ join ' ', @$_ }++ foreach @{ $facts->{effects} };
	foreach my $entry (grep { $_->{started} } @{ $self->{ledger} })
	{
		my $operation = $entry->{operation};
		my $token = $entry->{idempotency_token} // $entry->{weir_token};

		if ($operation eq 'databricks.repair') { $repairs{ $entry->{run_id} }++; }
		elsif (among($operation, 'adf.createRun databricks.run-now http.json')) { $started{ $token // 'no token' }++; }
	}
	foreach my $attempt (@{ $facts->{attempts} })
	{
		my ($id, $task, $no, $kind, $status, $token, $mode, $external) = @$attempt;
		my $name = "run $id task $task attempt $no ($kind, $status, $token)";

		$self->wrong("$name: token used twice") if $tokens{$token}++;
		if ($kind eq 'sql')
		{
			my $n = delete($effects{"$id $task $no"}) // 0;
			$self->wrong("$name: $n rows") if $n != ($status eq 'succeeded' ? 1 : 0);
		}
		$repairing{$external}++ if defined $mode && $mode eq 'repair' && defined $external;
		my $n = $started{$token} // 0;
		$self->wrong("$name: begun $n times") if $n > 1;
		$self->wrong("$name: succeeded, but nothing was begun") if $n == 0 && $status eq 'succeeded'
		  && among($kind, 'adf_pipeline databricks_job') && !among($mode // '', 'repair adopt recover');
	}
	$self->wrong("work of nobody's attempt: $_") foreach sort keys %effects;
	foreach my $token (sort keys %started)
	{
		$self->wrong("begun for a token of no attempt: $token") unless $tokens{$token};
	}
	foreach my $run (sort keys %repairs)
	{
		$self->wrong("job run $run: repaired $repairs{$run} times by " . ($repairing{$run} // 0) . ' attempts')
		  if $repairs{$run} > ($repairing{$run} // 0);
	}
	return;
}

1;
