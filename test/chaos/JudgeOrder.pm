# JudgeOrder.pm - what Judge.pm asks of the order in which what waits starts:
# queued runs of a pipeline, and tasks that need the same, of a higher priority
# first, and among equals in turns; what is overdue before all, the longest
# waiting first.  See "Limits and order" in doc/pipelines.md, and Judge.pm.
#
# Whoever starts something has looked some time before, and passes by what
# somebody else holds just then.  So only what has been there for half a second
# counts, and only if it is passed by again and again.

package Judge;

use strict;
use warnings FATAL => 'all';

my $fresh = 0.5;		# seconds
my $most = 2;			# times
my $turns = 4;			# of one run while another has none: turns begin anew after a crash

# A run that was asked for in a long transaction is there when that has ended.
# Runs of backfills come behind all others, as many at once as their backfill may have.
sub judge_queue
{
	my ($self, $run, $event) = @_;
	my @waiting = grep { $_->{status} eq 'queued' && $_->{pipeline} eq $run->{pipeline} && !$_->{backfill} && sees($event, $_->{asked_in}) } values %{ $self->{runs} };

	$_->{there_at} //= $event->{more}{at} foreach @waiting;
	@waiting = grep { $event->{more}{at} - $_->{there_at} > $fresh } @waiting;
	return if $run->{definition}{on_overlap} eq 'cancel_older';
	$self->{seen}{'queued before others'} += @waiting;
	my $may_be_overdue = !$run->{backfill} && $self->may_be_overdue($run->{asked_at}, $event->{more}{at});
	foreach my $other (@waiting)
	{
		my $is_overdue = $self->is_overdue($other->{asked_at}, $event->{more}{at}) && ($run->{backfill} || $run->{asked_at} - $other->{asked_at} > $fresh);
		my $is_first = $other->{priority} > $run->{priority} || ($other->{priority} == $run->{priority} && $other->{id} < $run->{id});

		$self->{seen}{'overdue'}++ if $may_be_overdue && $other->{priority} > $run->{priority};
		next unless $run->{backfill} || $is_overdue || ($is_first && !$may_be_overdue);
		$self->wrong("run $run->{id} of $run->{pipeline} (priority $run->{priority}) started before run $other->{id} (priority $other->{priority}), which waited")
		  if ++$other->{passed} == $most;
	}
	return;
}

# Since a moment it has waited too long by now, for whoever has looked a moment ago.
sub is_overdue
{
	my ($self, $since, $now) = @_;
	return $self->{overdue_after} && $now - $since > $self->{overdue_after} + $fresh;
}

sub may_be_overdue
{
	my ($self, $since, $now) = @_;
	return $self->{overdue_after} && $now - $since > $self->{overdue_after};
}

# What tasks need that may be scarce; undef if there is nothing.  It tells more
# apart than weir does.
sub need_of
{
	my ($run, $event, $known) = @_;
	my $outer = $run->{definition}{tasks}[ $event->{task_no} - 1 ];
	my $pool = $known->{kind} eq 'for_each' ? undef : $outer->{pool};

	my $limit = counts($known) ? $run->{definition}{max_concurrent_tasks} : undef;

	return undef unless defined $pool || defined $known->{connection} || $known->{kind} eq 'sql';
	return join ' ', $known->{kind}, (defined $limit ? "#$limit" : ()), (defined $pool ? "$pool $outer->{pool_slots}" : ()), $known->{connection} // '';
}

# What waits.  A pause before a retry is not waiting for others.
sub apply_order
{
	my ($self, $run, $event, $task, $known) = @_;
	my ($old, $new) = ($event->{old} // '', $event->{new});
	my $need = need_of($run, $event, $known) // return;
	my $waiting = $self->{waiting}{$need} //= {};
	my $name = "$event->{run_id} " . place_of($event);

	$event->{waited} = delete $waiting->{$name};
	$waiting->{$name} = { run => $event->{run_id}, xid => $event->{xid}, at => $event->{more}{at}, priority => $event->{more}{priority}, name => $name }
	  if $new eq 'ready' && $old ne 'running';
	return;
}

# Those that start in one statement start together.
sub judge_order
{
	my ($self, $statement) = @_;
	my @started = grep { $_->{what} eq 'task' && $_->{new} eq 'running' } @$statement;

	foreach my $event (@started)
	{
		foreach my $all (values %{ $self->{waiting} })
		{
			delete $_->{turns} foreach grep { $_->{run} == $event->{run_id} } values %$all;
		}
	}
	$self->judge_start($_) foreach @started;
	return;
}

sub judge_start
{
	my ($self, $event) = @_;
	my $run = $self->{runs}{ $event->{run_id} };
	my $need = need_of($run, $event, known_of($run, $event)) // return;
	my ($own, $waiting) = ($event->{waited}, $self->{waiting}{$need});
	my $may_be_overdue = $self->{overdue_after} && (!$own || $self->may_be_overdue($own->{at}, $event->{more}{at}));
	# A run that is full is passed over.
	foreach my $other (grep { $event->{more}{at} - $_->{at} > $fresh && sees($event, $_->{xid}) && !is_full($self->{runs}{ $_->{run} }) }
		map { $waiting->{$_} } sort keys %$waiting)
	{
		my $is_overdue = $self->is_overdue($other->{at}, $event->{more}{at}) && $own && $own->{at} - $other->{at} > $fresh;
		my $older = $own && $other->{run} == $event->{run_id} && $other->{priority} == $event->{more}{priority} && $own->{at} - $other->{at} > $fresh;

		$self->{seen}{'ready before others'}++;
		$self->{seen}{'overdue'}++ if $own && $may_be_overdue && $other->{priority} > $event->{more}{priority};
		$self->wrong("$event->{name} started, and $turns of its run have while run $other->{name}, of the same priority $other->{priority}, had no turn: $need")
		  if !$may_be_overdue && $other->{run} != $event->{run_id} && $other->{priority} == $event->{more}{priority} && ++$other->{turns}{ $event->{run_id} } == $turns;
		next unless $is_overdue || (($other->{priority} > $event->{more}{priority} || $older) && !$may_be_overdue);
		$self->wrong("$event->{name} (priority $event->{more}{priority}) started before run $other->{name} (priority $other->{priority}), which "
			. ($is_overdue ? 'was overdue' : $older ? 'was ready before it' : 'was ready') . " and needs the same: $need")
		  if ++$other->{passed} == $most;
	}
	return;
}

1;
