# Judge.pm - says what is wrong with what happened in a cycle of dags.pl.
#
# It plays the journal again, statement by statement, beside the definitions
# that the test made, and decides by what doc/pipelines.md and doc/restart.md
# say; nothing here was taken from the code.  A statement is judged by the
# statuses after it, a transaction by what it leaves.
#
# JudgeTasks.pm knows the kinds of tasks whose end is not their own (items,
# answers, runs of other pipelines) and the limits, JudgeHands.pm switches,
# decisions and retention, JudgeOrder.pm who goes first, JudgeEnd.pm what must be there in the end, here and
# in the cloud.

package Judge;

use strict;
use warnings FATAL => 'all';

use JSON::PP;

use Dags;
use JudgeEnd;
use JudgeHands;
use JudgeOrder;
use JudgeTasks;

my $canonical = JSON::PP->new->canonical;
our %is_final = map { $_ => 1 } qw(succeeded failed timed_out cancelled blocked skipped reused aborted lost);
our %is_bad = map { $_ => 1 } qw(failed timed_out cancelled);

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
		ready => 'running failed timed_out cancelled blocked skipped',
		running => 'ready succeeded failed timed_out cancelled',
		map { $_ => 'waiting ready' } qw(succeeded failed timed_out cancelled blocked skipped) },
	attempt => {
		'' => 'intended succeeded',
		intended => 'started succeeded failed timed_out cancelled lost',
		started => 'succeeded failed timed_out cancelled lost' });

# What a task may become when its attempt ended so.
my %follows = (
	succeeded => 'succeeded',
	failed => 'ready failed timed_out',
	timed_out => 'ready timed_out',
	cancelled => 'cancelled ready',
	lost => 'ready failed timed_out cancelled');

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
	return bless { %given, wrong => [], runs => {}, states => {}, noted => {}, slots => {%pools}, used => {}, under_way => {}, created => {}, seen => {} }, $class;
}

sub wrong { my ($self, $text) = @_; push @{ $self->{wrong} }, $text; return; }

# What it saw, how often: what never happens is not judged.
sub seen { return $_[0]->{seen}; }

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
sub is_of_run { my ($event) = @_; return defined $event->{run_id} && $event->{what} ne 'gone'; }

sub play
{
	my ($self) = @_;
	my @statements;
	my $last = $self->{last} = {};	# statement of a transaction about a run or pipeline

	foreach my $row (@{ $self->{facts}{journal} })
	{
		my %event;
		@event{qw(no xid what run_id task_no item_no attempt_no old new more)} = @$row;
		push @statements, [] unless @statements && $statements[-1][0]{no} == $event{no};
		push @{ $statements[-1] }, \%event;
		$last->{"$event{xid} $event{run_id}"} = $event{no} if is_of_run(\%event);
		$last->{"$event{xid} $event{more}{pipeline}"} = $event{no} if moves_pipeline(\%event);
	}
	foreach my $statement (@statements)
	{
		my %runs;

		$self->{now} = $statement->[0]{no};
		$self->apply($_) foreach @$statement;
		foreach my $event (@$statement)
		{
			$self->judge_task($event) if $event->{what} eq 'task' && !$event->{item_no};
			$self->judge_item($event) if $event->{what} eq 'task' && $event->{item_no};
			$self->judge_run($event) if $event->{what} eq 'run' && defined $event->{old};
			$runs{ $event->{run_id} } = $event->{xid} if is_of_run($event);
		}
		$self->judge_again($statement) if $statement->[0]{what} eq 'task';
		$self->judge_order($statement);
		$self->judge_limits($statement);
		foreach my $id (sort keys %runs)
		{
			$self->judge_commit($id, $runs{$id}) if $last->{"$runs{$id} $id"} == $statement->[0]{no};
		}
		foreach my $event (grep { moves_pipeline($_) } @$statement)
		{
			$self->judge_state($event) if $last->{"$event->{xid} $event->{more}{pipeline}"} == $event->{no};
		}
	}
	return;
}

sub run_of
{
	my ($self, $id) = @_;
	return $self->{runs}{$id} //= { id => $id, status => '', tasks => {} };
}

# What the journal says of a task, or of an item of a for_each.
sub task_of
{
	my ($run, $no, $item_no) = @_;
	my $task = $run->{tasks}{$no} //= { status => '', tries => 0, items => {} };

	return $task unless $item_no;
	return $task->{items}{$item_no} //= { status => '', tries => 0, item_no => $item_no };
}

sub known_of
{
	my ($run, $event) = @_;
	my $known = $run->{definition}{tasks}[ $event->{task_no} - 1 ];

	return $event->{item_no} ? $known->{item} : $known;
}

# "task 3", "task 3 item 2 attempt 1"
sub place_of
{
	my ($event) = @_;
	return join ' ', "task $event->{task_no}", ($event->{item_no} ? "item $event->{item_no}" : ()),
	  ($event->{what} eq 'task' ? () : "attempt $event->{attempt_no}");
}

sub apply
{
	my ($self, $event) = @_;
	my ($what, $old, $new) = ($event->{what}, $event->{old} // '', $event->{new} // '');

	if ($what eq 'state')
	{
		$self->apply_skip($event);
		$self->{noted}{ $event->{more}{pipeline} } = $event->{more};
		return;
	}
	if ($what eq 'pool')
	{
		my $name = $event->{more}{name};
		$self->{slots}{$name} = $event->{more}{slots} if $event->{more}{slots} > $self->{slots}{$name};
		return;
	}
	if ($what eq 'switch') { $self->apply_switch($event); return; }
	if ($what eq 'gone') { $self->apply_gone($event); return; }
	my $run = $self->run_of($event->{run_id});
	if ($what eq 'signal')
	{
		$run->{kept}{ $event->{more}{name} } = 1;
		return;
	}
	my $name = $event->{name} = "$what of run $event->{run_id}" . ($what eq 'run' ? '' : ' ' . place_of($event));

	$self->wrong("$name: $old became $new") unless among($what, 'answer moved') || among($new, $legal{$what}{$old} // '');
	if ($what eq 'run') { $self->apply_run($run, $event); }
	elsif ($what eq 'task') { $self->apply_task($run, $event); }
	elsif ($what eq 'answer') { $self->apply_answer($run, $event); }
	elsif ($what eq 'moved') { $self->wrong("$name: the moment it waits for moved"); }
	else { $self->apply_attempt($run, $event); }
	return;
}

sub apply_run
{
	my ($self, $run, $event) = @_;
	my ($old, $new) = ($event->{old} // '', $event->{new});

	$self->judge_audit($run, $event);
	$run->{$_} = $event->{more}{$_} foreach grep { defined $event->{more}{$_} } keys %{ $event->{more} };
	$run->{definition} = $self->{pipelines}{ $run->{pipeline} };
	$self->wrong("$event->{name}: it was $run->{status}, not $old") if $old ne $run->{status};
	$run->{status} = $new;
	$run->{decides}{ $event->{xid} } = 1;
	$run->{ended} = $new if $is_final{$new};
	$run->{failures} = 0 if $new eq 'running';
	$run->{live_since} = $event->{more}{at} if $new eq 'running';
	$run->{asked_in} = $event->{xid} if $old eq '';
	$self->{seen}{repairs}++ if $is_final{$old};
	$self->{seen}{"runs $new"}++ if $is_final{$new};
	$self->apply_child($run, $event) if $old eq '' && $run->{parent};
	return;
}

sub apply_task
{
	my ($self, $run, $event) = @_;
	my ($old, $new) = ($event->{old} // '', $event->{new});
	my $task = task_of($run, $event->{task_no}, $event->{item_no});
	my $known = known_of($run, $event);

	$self->wrong("$event->{name}: it was $task->{status}, not $old") if $old ne $task->{status};
	$task->{status} = $new;
	$task->{since} = $event->{no};
	$self->apply_order($run, $event, $task, $known);
	$task->{reason} = $event->{more}{reason};
	$task->{branch} = $event->{more}{branch} if defined $event->{more}{branch};
	$run->{decides}{ $event->{xid} } = 1 if $new ne 'running';
	push @{ $run->{left}{ $event->{xid} } }, $event if $old eq 'running' || $new eq 'running';
	$task->{tries} = $task->{started} = 0 if $is_final{$old};
	$task->{started} = $event->{xid} if $new eq 'running';
	$run->{failures}++ if $is_bad{$new};
	$self->apply_unseen($run, $event);
	$self->judge_late($run, $event, delete $task->{late}) if $task->{late};
	$self->take_slots($run, $event, $new eq 'running' ? 1 : -1) if $old eq 'running' || $new eq 'running';
	return;
}

sub apply_attempt
{
	my ($self, $run, $event) = @_;
	my $new = $event->{new};
	my $task = task_of($run, $event->{task_no}, $event->{item_no});
	my $known = known_of($run, $event);
	my $attempt = $task->{attempt};

	push @{ $run->{tried}{ $event->{xid} } }, $event;
	if (!defined $event->{old})
	{
		$self->wrong("$event->{name}: attempt $attempt->{no} is $attempt->{status}") if $attempt && !$is_final{ $attempt->{status} };
		$self->wrong("$event->{name}: the one before was " . ($attempt ? $attempt->{no} : 0)) if $event->{attempt_no} != ($attempt ? $attempt->{no} : 0) + 1;
		$attempt = $task->{attempt} = { no => $event->{attempt_no}, status => '' };
	}
	$attempt->{status} = $new;
	my $live = $is_final{$new} ? -1 : defined $event->{old} ? 0 : 1;
	$self->{under_way}{ $known->{connection} } += $live if defined $known->{connection};
	return unless $is_final{$new};
	$attempt->{sqlstate} = $event->{more}{sqlstate};
	$attempt->{code} = $event->{more}{code};
	if ($new ne 'lost')
	{
		my $tries = ++$task->{tries};

		$self->wrong("$event->{name}: it is try $tries of $known->{max_attempts}") if $tries > $known->{max_attempts};
	}
	$self->judge_call($run, $event) if $known->{kind} eq 'pipeline';
	$self->judge_wait($run, $event) if $known->{kind} eq 'wait';
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

# Something failed since the run started or was repaired, and nothing new starts.
sub fails_fast
{
	my ($run, $known) = @_;
	return $run->{definition}{on_failure} eq 'fail_fast' && !reacts($known) && $run->{failures};
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
		my $expected = Dags::expected_branch($known, params_of($run));

		$self->wrong("$name and chose $event->{more}{branch}, expected $expected") if ($event->{more}{branch} // '') ne $expected;
	}
	elsif ($is_final{$new} && $old eq 'running')
	{
		$self->judge_for_each($event) if $known->{kind} eq 'for_each';
		$self->judge_answered($event) if $known->{kind} eq 'wait';
	}
	return;
}

sub params_of
{
	my ($run) = @_;
	return { n => 3, region => 'south', list => $run->{definition}{list}, %{ $run->{params} // {} } };
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

# What tells loads apart: parameters and window.
sub load_of { my ($run) = @_; return $canonical->encode($run->{params} // {}) . ' ' . ($run->{window} // ''); }

# The landing this run resumes: one that nobody resumes, and where runs go on
# side by side, of the run that it restarts or of one for the same load.
sub landing_for
{
	my ($self, $run, $state) = @_;
	my %taken = map { ($_->{audit} // 0) => 1 }
	  grep { $_ != $run && $_->{pipeline} eq $run->{pipeline} && among($_->{status}, 'running cancelling') } values %{ $self->{runs} };
	my $params = load_of($run);
	my $landings = $state->{landings};
	my $own = $run->{restart_of} ? $self->{runs}{ $run->{restart_of} }{audit} // 0 : 0;
	my %fit = map { $_ => ($_ == $own ? 2 : 0) + ($landings->{$_} eq $params ? 1 : 0) } keys %$landings;
	my @free = sort { $fit{$b} <=> $fit{$a} || $a <=> $b } grep { !$taken{$_} } keys %$landings;

	@free = grep { $fit{$_} } @free if $run->{definition}{max_concurrent_runs} > 1;
	$self->{seen}{ @free ? 'landings resumed' : 'landings beside' }++ if $run->{definition}{max_concurrent_runs} > 1;
	return $free[0];
}

# A run that starts or is repaired takes a place, and nobody else goes on with its landing.
sub judge_place
{
	my ($self, $run, $name) = @_;
	my @active = grep { among($_->{status}, 'running cancelling') && $_->{pipeline} eq $run->{pipeline} } values %{ $self->{runs} };
	my ($other) = grep { $_ != $run && ($_->{audit} // 0) == $run->{audit} } @active;

	$self->wrong("$name, and " . scalar(@active) . ' are active') if @active > $run->{definition}{max_concurrent_runs};
	$self->wrong("$name, and so is run $other->{id}, which has its landing") if $other;
	return;
}

# What the run it repeats has landed, if that was a partial run or a window, and nobody has gone on with it.
sub landing_of_restarted
{
	my ($self, $run) = @_;
	my $before = $self->{runs}{ $run->{restart_of} // '' } // return undef;

	return undef unless $before->{apart} && $is_final{ $before->{status} } && ($before->{said} // '') eq 'D';
	foreach my $other (grep { $_ != $run && $_->{pipeline} eq $run->{pipeline} && ($_->{audit} // 0) == $before->{audit} } values %{ $self->{runs} })
	{
		return undef if among($other->{status}, 'running cancelling');
		return undef if $other->{id} > $before->{id} && $other->{apart} && $other->{restart_of} && $other->{status} eq 'succeeded';
	}
	$self->{seen}{'own landings resumed'}++;
	return $before->{audit};
}

# Rows that landed are known by an id that a start decides, once.
sub judge_audit
{
	my ($self, $run, $event) = @_;
	my $was = $run->{audit} // return;
	my $audit = $event->{more}{audit} // 'null';

	$self->wrong("run $run->{id} of $run->{pipeline}: its row audit id became $audit, and was $was") if $audit ne $was;
	$self->{seen}{'repairs after D'}++ if $is_final{ $event->{old} } && $was ne $run->{id};
	return;
}

sub judge_run
{
	my ($self, $event) = @_;
	my $run = $self->{runs}{ $event->{run_id} };
	my $state = $self->{states}{ $run->{pipeline} } //= { next => 'P' };
	my ($old, $new) = ($event->{old}, $event->{new});
	my $name = "run $run->{id} of $run->{pipeline}: $old became $new";

	$self->judge_skipped($run, $event) if $old eq 'queued' && $new eq 'skipped';
	if ($old eq 'queued' && $new eq 'running')
	{
		$self->judge_started($run, $event);
		$self->judge_queue($run, $event);
		my $own = $self->landing_of_restarted($run);
		my $landing = $own // ($state->{next} eq 'D' && !$run->{backfill} ? $self->landing_for($run, $state) : undef);
		my $start = defined $own ? 'D' : $run->{backfill} || $state->{next} eq 'P' || ($state->{next} eq 'D' && !defined $landing) ? 'E' : $state->{next};
		my $audit = $landing // $run->{id};

		$self->wrong("$name as $run->{start} with $run->{audit}, expected $start with $audit")
		  unless $run->{start} eq $start && $run->{audit} == $audit;
		$state->{last} = $run->{id} unless $run->{apart};
		$self->judge_place($run, $name);
	}
	elsif ($is_final{$old} && $new eq 'running')
	{
		$self->judge_place($run, $name);
	}
	elsif ($is_final{$new} && $old ne 'queued')
	{
		my $expected = expected_end($run, $old);
		my $next = expected_next($run);

		$self->wrong("$name, expected $expected (" . join(' ', map { "t$_ $run->{tasks}{$_}{status}" } sort { $a <=> $b } keys %{ $run->{tasks} }) . ')')
		  if $new ne $expected;
		$self->wrong("$name with $event->{more}{next}, expected $next") if $event->{more}{next} ne $next;
		$run->{said} = $next;
		return if $run->{apart};
		$self->{seen}{"ended $next"}++;
		$state->{landings}{ $run->{audit} } = load_of($run) if $next eq 'D';
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
	my $found = $self->{noted}{$pipeline} // { next => 'P' };	# nothing was written yet

	$self->wrong("pipeline $pipeline: a start was skipped, and is to be again, in transaction $event->{xid}")
	  if ($self->{skipped}{"$event->{xid} $pipeline"} // 0) > 0 && !$self->{switch}{$pipeline}{was_off};
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
	my $name = "run $id of $run->{pipeline} after transaction $xid";
	my $failure = $self->judge_outcomes($run, $xid, $name);

	$self->judge_kept($run, $_) foreach grep { !defined $_->{old} } @{ $run->{tried}{$xid} // [] };
	return if $run->{status} eq 'queued' || !%{ $run->{tasks} };	# did not start
	return unless $run->{decides}{$xid};	# what only starts tasks may be in the middle of another
	my $fast = $run->{definition}{on_failure} eq 'fail_fast' && $run->{failures};
	my @live = grep { !$is_final{ $run->{tasks}{ $_->{no} }{status} // '' } } @{ $run->{definition}{tasks} };
	foreach my $known (grep { $_->{kind} eq 'for_each' && $run->{tasks}{ $_->{no} } } @{ $run->{definition}{tasks} })
	{
		$self->judge_items($run, $known, reacts($known) ? '' : $fast, $failure, $name, $xid);
	}
	if ($is_final{ $run->{status} })
	{
		$self->wrong("$name: $run->{status}, but $_->{name} is " . ($run->{tasks}{ $_->{no} }{status} // 'not there')) foreach @live;
		return;
	}
	$self->wrong("$name: all tasks have ended, but it is $run->{status}") unless @live;
	foreach my $known (@live)
	{
		my $task = $run->{tasks}{ $known->{no} };
		my $status = $task->{status};

		if ($status eq 'running')
		{
			$self->wrong("$name: $known->{name} is running, but nothing of it is")
			  unless $self->{last}{"$task->{started} $id"} > $self->{now} || ($task->{attempt} && !$is_final{ $task->{attempt}{status} }) || grep { !$is_final{ $_->{status} } } values %{ $task->{items} };
			next;
		}
		$self->wrong("$name: $known->{name} is $status, but the run is cancelling") if $run->{status} eq 'cancelling';
		$self->wrong("$name: $known->{name} waits, but is to be " . decision($run, $known))
		  if $status eq 'waiting' && defined decision($run, $known);
		next if reacts($known) || !$fast || may_try_again($task, $failure);
		$task->{late} = { xid => $xid, text => "$name: $known->{name} is $status after a failure that ends the run" };
	}
	return;
}

# What ran while something failed goes on, with its retries.
sub may_try_again
{
	my ($task, $failure) = @_;
	return $task->{started} && (!defined $failure || $task->{since} > $failure);
}

# A failure ends what has not started; only what somebody is starting at the
# same time, who does not see it yet, may.
sub judge_late
{
	my ($self, $run, $event, $late) = @_;
	my ($xmin, $xmax, $xip) = split /:/, $event->{more}{snapshot} // '';

	return if defined $xmax && ($late->{xid} >= $xmax || grep { $_ == $late->{xid} } split /,/, $xip // '');
	$self->wrong("$late->{text}, and becomes $event->{new}");
	return;
}

# Attempts and their tasks and items changed together.  Did one of these fail?  Then the statement.
sub judge_outcomes
{
	my ($self, $run, $xid, $name) = @_;
	my %ended = map { (place_of($_) => $_) } grep { $is_final{ $_->{new} } } @{ $run->{tried}{$xid} // [] };
	my %begun = map { (place_of($_) => 1) } grep { !defined $_->{old} } @{ $run->{tried}{$xid} // [] };
	my $failure;

	foreach my $event (@{ $run->{left}{$xid} // [] })
	{
		my $key = place_of($event) . " attempt $event->{attempt_no}";
		my $attempt = $ended{$key};

		if ($event->{new} eq 'running')
		{
			$self->wrong("$name: $key runs without an intent") unless $begun{$key};
			next;
		}
		delete $ended{$key};
		# A for_each that has listed its items ends with them: what failed is an item.
		next if has_listed($run, $event);
		$failure = $event->{no} if $is_bad{ $event->{new} };
		$self->wrong("$name: $key became $event->{new}, its attempt " . ($attempt ? $attempt->{new} : 'did not end'))
		  unless $attempt && among($event->{new}, $follows{ $attempt->{new} });
		$self->judge_retry($run, $event) if $attempt;
		$self->wrong("$name: $key is tried again, though nobody knows what became of it") if $event->{new} eq 'ready' && ($attempt->{more}{code} // '') eq 'outcome_unknown';
	}
	foreach my $key (sort keys %ended)
	{
		$self->wrong("$name: attempt ended without its task: $key") unless has_listed($run, $ended{$key});
	}
	return $failure;
}

1;
