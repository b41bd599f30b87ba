# JudgeHands.pm - what Judge.pm asks of what people do: switches of pipelines,
# decisions where nobody knows, adopted runs, and retention.  See Judge.pm.

package Judge;

use strict;
use warnings FATAL => 'all';

use Dags;

our (%is_final, %is_bad);

# --- switches ---------------------------------------------------------------------

sub apply_switch
{
	my ($self, $event) = @_;
	my $switch = $self->{switch}{ $event->{more}{pipeline} } //= {};

	$switch->{was_off} = 1 unless $event->{more}{enabled};
	$switch->{off} = $event->{more}{enabled} ? undef : { xid => $event->{xid}, at => $event->{more}{at} };
	return;
}

sub is_to_skip
{
	my ($self, $pipeline) = @_;
	return $self->{noted}{$pipeline} && $self->{noted}{$pipeline}{skip};
}

# A skip that was asked for is used once, by a start that was skipped; so many
# were in this transaction.
sub apply_skip
{
	my ($self, $event) = @_;
	my $pipeline = $event->{more}{pipeline};
	my $before = $self->is_to_skip($pipeline);

	return unless $before && !$event->{more}{skip};
	$self->{seen}{'skips'}++;
	$self->wrong("pipeline $pipeline: its skip is gone, but no start was skipped, in transaction $event->{xid}") unless $self->{skipped}{"$event->{xid} $pipeline"}-- > 0;
	return;
}

# Whether what was committed by transaction $xid is seen by this event.
sub sees
{
	my ($event, $xid) = @_;
	my ($xmin, $xmax, $xip) = split /:/, $event->{more}{snapshot} // '';

	return defined $xmax && $xid < $xmax && !grep { $_ == $xid } split /,/, $xip // '';
}

sub judge_started
{
	my ($self, $run, $event) = @_;
	my $name = "run $run->{id} of $run->{pipeline}";
	my $off = $self->{switch}{ $run->{pipeline} }{off};

	# Of a backfill every window is started; a skip waits for the next other start.
	$self->wrong("$name started, but a skip was asked for") if $self->is_to_skip($run->{pipeline}) && !$run->{backfill};
	# Whether it is enabled was read in the statement before, on a machine that may be busy.
	$self->wrong("$name started, but its pipeline is disabled") if $off && sees($event, $off->{xid}) && $event->{more}{at} - $off->{at} > 0.5;
	return;
}

# A run that did not start.
sub judge_skipped
{
	my ($self, $run, $event) = @_;
	my $name = "run $run->{id} of $run->{pipeline} was skipped";

	if ($event->{more}{overlaps})
	{
		$self->wrong("$name for others, but on_overlap is $run->{definition}{on_overlap}") if $run->{definition}{on_overlap} ne 'skip';
		return;
	}
	$self->wrong("$name as $run->{start}") if $run->{start} ne 'C';
	if ($self->{switch}{ $run->{pipeline} }{was_off})
	{
		$self->{seen}{'disabled starts'}++;
		return if !$self->is_to_skip($run->{pipeline});
	}
	elsif (!$self->is_to_skip($run->{pipeline}) || $self->{skipped}{"$event->{xid} $run->{pipeline}"})
	{
		$self->wrong("$name, and nobody asked for it");
		return;
	}
	$self->{skipped}{"$event->{xid} $run->{pipeline}"}++;
	return;
}

# --- what nobody knows --------------------------------------------------------------

# The task, or the item's, of "t3" or "t3[2]".
sub known_by_name
{
	my ($run, $task) = @_;
	my ($no, $item) = $task =~ /^t(\d+)(\[\d+\])?$/;
	my $known = $run->{definition}{tasks}[ $no - 1 ];

	return $item ? $known->{item} : $known;
}

my %begins = map { $_ => 1 } qw(adf_pipeline databricks_job databricks_notebook databricks_sql databricks_serving webhook);

# Was an answer that a task has not from the engine allowed?
sub apply_unseen
{
	my ($self, $run, $event) = @_;
	my $known = known_of($run, $event);
	my $unseen = $event->{more}{unseen} // return;
	my $task = $event->{item_no} ? "t$event->{task_no}\[$event->{item_no}]" : "t$event->{task_no}";

	return unless $event->{new} eq 'succeeded' && defined $event->{attempt_no};
	$self->{seen}{$unseen}++;
	$self->{unseen}{"$run->{id} $task $event->{attempt_no}"} = $unseen;
	$self->wrong("$event->{name}: it was assumed to have begun, on_uncertain is " . ($known->{on_uncertain} // 'fail'))
	  if $unseen eq 'assumed' && ($known->{on_uncertain} // '') ne 'assume_started';
	return;
}

# An attempt began as often as it was sent: once, unless it may be sent again,
# and not at all only if somebody says that it did, or if it follows what
# another began.
sub work_of_engine
{
	my ($self, $name, $attempt, $n) = @_;
	my ($id, $task, $no, $kind, $status, $token, $mode, $external, $code) = @$attempt;
	my $known = known_by_name($self->{runs}{$id}, $task);
	my $policy = $known->{on_uncertain} // 'fail';
	my $spec = $known->{spec};
	my $key = "$id $task $no";
	my $most = 1 + ($policy eq 'send_again' ? 5 : 0) + ($self->{sent_again}{$key} // 0);
	my $must = $begins{$kind} || ($kind eq 'http' && ($spec->{method} // '') eq 'POST');
	my $follows = among($mode // '', 'repair adopt recover') || $self->{unseen}{$key}
	  || (defined $external && ($self->{followed}{$external} || $self->{facts}{by_hand}{$external}));

	$self->{seen}{'sent again'}++ if $n > 1;
	$self->wrong("$name: begun $n times, at most $most may be") if $n > $most;
	$self->wrong("$name: succeeded, but nothing was begun") if $n == 0 && $status eq 'succeeded' && $must && !$follows;
	$self->wrong("$name: begun, though it follows $external, which was started by hand")
	  if $n > 0 && defined $external && $self->{facts}{by_hand}{$external} && !$self->{sent_again}{$key} && $policy ne 'send_again' && !$self->{adopted}{$key};
	$self->wrong("$name: outcome_unknown, but on_uncertain is $policy")
	  if ($code // '') eq 'outcome_unknown' && $status eq 'failed' && among($kind, 'http databricks_serving') && among($policy, 'ask assume_started');
	$self->{followed}{$external}++ if defined $external;
	if (defined $external && $self->{facts}{by_hand}{$external})
	{
		my $of = $self->{hand_of}{$external} //= "$id $task";
		$self->{seen}{'adopted'}++;
		$self->wrong("$name: follows $external as $of does") if $of ne "$id $task";
	}
	return;
}

# What was decided has followed, unless the attempt was ended before.
sub read_decisions
{
	my ($self) = @_;
	my %last;

	foreach my $decided (@{ $self->{facts}{decided} })
	{
		my ($id, $task, $no, $what) = @$decided;
		next unless defined $no;
		$self->{seen}{"decided $what"}++;
		$self->{sent_again}{"$id $task $no"}++ if $what eq 'send_again';
		$self->{adopted}{"$id $task $no"}++ if $what eq 'adopt';
		$last{"$id $task $no"} = $decided;
	}
	foreach my $key (sort keys %last)
	{
		my (undef, undef, undef, $what, $hand, $status, $code, $external) = @{ $last{$key} };
		my $ended = among($status, 'cancelled timed_out');
		my $followed = $what eq 'succeeded' ? $status eq 'succeeded' : $what eq 'failed' ? $status eq 'failed' && ($code // '') eq 'resolved_as_failed'
		  : $what eq 'adopt' ? ($external // '') eq $hand : 1;

		$self->wrong("run, task and attempt $key: decided as $what, but it $status (" . ($code // 'no code') . ')') unless $followed || $ended;
	}
	return;
}

# --- retention ----------------------------------------------------------------------

# A run is removed: it has ended, and nobody needs it.
sub apply_gone
{
	my ($self, $event) = @_;
	my $id = $event->{run_id};
	my $run = $self->{runs}{$id};

	$self->{removed}{ $event->{xid} }++;
	return if $id <= $self->{facts}{after};
	my $name = "run $id of $event->{more}{pipeline} was removed";
	my $state = $self->{states}{ $event->{more}{pipeline} } // {};
	$run->{gone} = 1;
	$self->{seen}{'removed runs'}++;
	$self->wrong("$name, and is $run->{status}") unless $is_final{ $run->{status} };
	$self->wrong("$name, and its pipeline keeps all") unless defined $run->{definition}{keeps};
	foreach my $what (qw(last success origin))
	{
		$self->wrong("$name, and is the $what of its pipeline") if ($state->{$what} // 0) == $id;
	}
	$self->wrong("$name, and its landing waits") if defined $state->{landings}{$id};
	# The look at what is live was before the removal: only what was live for some time is seen to be.
	my @live = grep { !$_->{gone} && !$is_final{ $_->{status} } && $event->{more}{at} - ($_->{live_since} // $event->{more}{at}) > 0.5 } values %{ $self->{runs} };
	my @newer = grep { my $other = $_; $other->{pipeline} eq $run->{pipeline} && $other->{id} > $id && $other->{status} ne 'queued'
		  && ($is_final{ $other->{status} } || !grep { $_ == $other } @live) } values %{ $self->{runs} };
	$self->wrong("$name, and only " . @newer . " ended ones are newer of $run->{definition}{keeps} that stay") if @newer < $run->{definition}{keeps};
	foreach my $other (@live)
	{
		$self->wrong("$name, and run $other->{id}, which it started, is $other->{status}") if $other->{creator} && $other->{creator}[0] == $id;
		$self->wrong("$name, and run $other->{id}, which started it, is $other->{status}") if $run->{creator} && $run->{creator}[0] == $other->{id};
	}
	return;
}

# After a last sweep: what is kept by number, and what somebody needs.
sub work_of_retention
{
	my ($self) = @_;
	my $facts = $self->{facts};

	$self->wrong("$facts->{orphans} rows are of runs that are gone") if $facts->{orphans};
	foreach my $xid (sort keys %{ $facts->{pruned} })
	{
		my $n = $self->{removed}{$xid} // 0;
		$self->wrong("transaction $xid: weir.prune says $facts->{pruned}{$xid}, $n runs were removed") if $n != $facts->{pruned}{$xid};
	}
	foreach my $pipeline (grep { defined $_->{keeps} } values %{ $self->{pipelines} })
	{
		my $state = $self->{states}{ $pipeline->{name} } // {};
		my @runs = sort { $b->{id} <=> $a->{id} } grep { $_->{status} ne '' && $_->{pipeline} eq $pipeline->{name} } values %{ $self->{runs} };
		my $n = 0;

		foreach my $run (@runs)
		{
			my $newest = $n++ < $pipeline->{keeps};
			my $is_needed = grep { ($state->{$_} // 0) == $run->{id} } qw(last success origin);
			my $name = "run $run->{id} of $pipeline->{name}, which keeps $pipeline->{keeps},";
			$self->wrong("$name is gone, of $n newest") if $newest && $run->{gone};
			$self->wrong("$name is still there, $n newest") if !$newest && !$is_needed && !$run->{gone} && !%{ $state->{landings} // {} };
		}
	}
	return;
}

1;
