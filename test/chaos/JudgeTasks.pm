# JudgeTasks.pm - what Judge.pm asks of tasks whose end is not their own: items
# of a for_each, answers to what waits, runs of other pipelines; of retries,
# and of limits.  See Judge.pm.

package Judge;

use strict;
use warnings FATAL => 'all';

use Dags;

our (%is_final, %is_bad);

# --- items ------------------------------------------------------------------------

# Has it listed its items, so that its end is theirs?
sub has_listed
{
	my ($run, $event) = @_;
	my $attempt = task_of($run, $event->{task_no}, $event->{item_no})->{attempt};

	return known_of($run, $event)->{kind} eq 'for_each' && $attempt && $attempt->{status} eq 'succeeded';
}

sub items_of { my ($task) = @_; return map { $task->{items}{$_} } sort { $a <=> $b } keys %{ $task->{items} }; }

sub judge_item
{
	my ($self, $event) = @_;
	my $run = $self->{runs}{ $event->{run_id} };
	my $outer = $run->{definition}{tasks}[ $event->{task_no} - 1 ];
	my $task = $run->{tasks}{ $event->{task_no} };
	my ($old, $new) = ($event->{old} // '', $event->{new});
	my $name = "run $run->{id} of $run->{pipeline} $outer->{name}\[$event->{item_no}]: $old became $new";

	if ($old eq '' || $is_final{$old})
	{
		$self->wrong("$name, but the for_each is $task->{status}")
		  unless $task->{status} eq 'running' && $task->{attempt} && $task->{attempt}{status} eq 'succeeded';
		$self->wrong("$name in a run that is $run->{status}") unless $run->{status} eq 'running';
	}
	elsif ($new eq 'blocked')
	{
		$self->wrong("$name without a failure") unless fails_fast($run, $outer);
	}
	elsif (among($old, 'waiting ready') && $new eq 'cancelled')
	{
		$self->wrong("$name in a run that is $run->{status}") unless $run->{status} eq 'cancelling';
	}
	elsif ($new eq 'skipped')
	{
		$self->wrong($name);
	}
	$self->judge_answered($event) if $outer->{item}{kind} eq 'wait' && $is_final{$new};
	return;
}

# Items go again that did not succeed; if all did, all of them.
sub judge_again
{
	my ($self, $statement) = @_;
	my %again;

	foreach my $event (grep { $_->{item_no} && $is_final{ $_->{old} // '' } } @$statement)
	{
		$again{"$event->{run_id} $event->{task_no}"}{ $event->{item_no} } = $event->{old};
	}
	foreach my $place (sort keys %again)
	{
		my ($run, $no) = split / /, $place;
		my $items = $self->{runs}{$run}{tasks}{$no}{items};
		my %was = map { $_ => $again{$place}{$_} // $items->{$_}{status} } keys %$items;
		my $all = !grep { $_ ne 'succeeded' } values %was;
		$self->{seen}{'lists again'}++;

		foreach my $item (sort { $a <=> $b } keys %was)
		{
			my $expected = $all || $was{$item} ne 'succeeded';
			$self->wrong("run $run task $no item $item was $was{$item} and " . ($expected ? 'does not go' : 'goes') . ' again')
			  if $expected xor defined $again{$place}{$item};
		}
	}
	return;
}

# The end of a for_each.
sub judge_for_each
{
	my ($self, $event) = @_;
	my $run = $self->{runs}{ $event->{run_id} };
	my $known = known_of($run, $event);
	my $task = $run->{tasks}{ $event->{task_no} };
	my %n = map { $_ => 0 } qw(succeeded failed timed_out);
	my $name = "run $run->{id} of $run->{pipeline} $known->{name} (for_each): $event->{old} became $event->{new}";

	return unless has_listed($run, $event);
	# Cancelled while it was listing: the list is not taken.
	return if $event->{new} eq 'cancelled' && $run->{status} eq 'cancelling' && grep { place_of($_) eq place_of($event) . " attempt $event->{attempt_no}" && $is_final{ $_->{new} } } @{ $run->{tried}{ $event->{xid} } // [] };

	my @items = items_of($task);
	$n{ $_->{status} }++ foreach @items;
	foreach my $item (grep { !$is_final{ $_->{status} } } @items)
	{
		$self->wrong("$name, but item $item->{item_no} is $item->{status}");
	}
	my $expected = $n{succeeded} == @items ? 'succeeded' : $run->{status} eq 'cancelling' || $n{failed} + $n{timed_out} == 0 ? 'cancelled' : 'failed';
	$self->{seen}{"lists $expected"}++;
	$self->wrong("$name, expected $expected (" . join(' ', map { "$_->{item_no} $_->{status}" } @items) . ')') if $event->{new} ne $expected;
	my $length = Dags::expected_length($known, params_of($run));
	$self->wrong("$name with " . scalar(@items) . ' items of ' . ($length // 'no list')) if !defined $length || $length != @items;
	$self->wrong("$name, its output knows " . ($event->{more}{items} // 'no') . ' items') if ($event->{more}{items} // -1) != @items;
	return;
}

# Of a for_each at the end of a transaction.
sub judge_items
{
	my ($self, $run, $known, $fails_fast, $failure, $name, $xid) = @_;
	my $task = $run->{tasks}{ $known->{no} };
	my %n = map { $_ => 0 } qw(waiting ready running);
	my $live = 0;

	$n{ $_->{status} }++ foreach items_of($task);
	$live += $n{$_} foreach qw(waiting ready running);
	return unless $live;
	$self->wrong("$name: $known->{name} is $task->{status}, but $live of its items have not ended") if $task->{status} ne 'running';
	$self->wrong("$name: items of $known->{name} wait, though only " . ($n{ready} + $n{running}) . " of $known->{concurrency} may run")
	  if $n{waiting} && $n{ready} + $n{running} < $known->{concurrency};
	$self->wrong("$name: items of $known->{name} wait, but the run is cancelling") if $run->{status} eq 'cancelling' && $n{waiting} + $n{ready};
	foreach my $item (grep { $fails_fast && among($_->{status}, 'waiting ready') && !may_try_again($_, $failure) } items_of($task))
	{
		$item->{late} = { xid => $xid, text => "$name: $known->{name}\[$item->{item_no}] is $item->{status} after a failure that ends the run" };
	}
	return;
}

# --- limits -----------------------------------------------------------------------

# A for_each takes no slots, its items do.
sub take_slots
{
	my ($self, $run, $event, $sign) = @_;
	my $outer = $run->{definition}{tasks}[ $event->{task_no} - 1 ];

	return if !defined $outer->{pool} || ($outer->{kind} eq 'for_each' && !$event->{item_no});
	$self->{seen}{'pooled tasks'}++;
	$self->{used}{ $outer->{pool} } += $sign * $outer->{pool_slots};
	return;
}

# Does a task, or an item, count towards max_concurrent_tasks?
sub counts { my ($known) = @_; return !among($known->{kind}, 'noop if switch wait for_each'); }

# How many of a run that count are running.
sub running_of
{
	my ($run) = @_;
	my $n = 0;

	foreach my $known (grep { $run->{tasks}{ $_->{no} } } @{ $run->{definition}{tasks} })
	{
		my $task = $run->{tasks}{ $known->{no} };

		$n += counts($known) && $task->{status} eq 'running';
		$n += grep { $_->{status} eq 'running' } items_of($task) if $known->{item} && counts($known->{item});
	}
	return $n;
}

sub is_full
{
	my ($run) = @_;
	return $run->{definition}{max_concurrent_tasks} && running_of($run) >= $run->{definition}{max_concurrent_tasks};
}

sub judge_run_limit
{
	my ($self, $statement) = @_;
	my %runs = map { $_->{run_id} => 1 } grep { $_->{what} eq 'task' && $_->{new} eq 'running' } @$statement;

	foreach my $run (map { $self->{runs}{$_} } sort keys %runs)
	{
		my $most = $run->{definition}{max_concurrent_tasks} // next;
		my $n = running_of($run);

		$self->{seen}{'full runs'}++ if $n == $most;
		$self->wrong("run $run->{id} of $run->{pipeline}: $n tasks run, at most $most may, in transaction $statement->[0]{xid}") if $n > $most;
	}
	return;
}

sub judge_limits
{
	my ($self, $statement) = @_;
	my $what = $statement->[0]{what};
	my %places;

	return unless among($what, 'task attempt');
	$self->judge_run_limit($statement);
	foreach my $pool (sort keys %{ $self->{used} })
	{
		$self->wrong("pool $pool: $self->{used}{$pool} of $self->{slots}{$pool} slots are taken, in transaction $statement->[0]{xid}")
		  if $self->{used}{$pool} > $self->{slots}{$pool} || $self->{used}{$pool} < 0;
	}
	foreach my $connection (sort keys %connections)
	{
		my $n = $self->{under_way}{$connection} // 0;
		$self->wrong("connection $connection: $n attempts go on, in transaction $statement->[0]{xid}") if $n > $connections{$connection} || $n < 0;
	}
	$places{"$_->{run_id} $_->{task_no}"} = $_ foreach grep { $_->{what} eq 'task' && $_->{item_no} } @$statement;
	foreach my $event (map { $places{$_} } sort keys %places)
	{
		my $run = $self->{runs}{ $event->{run_id} };
		my $known = $run->{definition}{tasks}[ $event->{task_no} - 1 ];
		my $n = grep { among($_->{status}, 'ready running') } items_of($run->{tasks}{ $event->{task_no} });

		$self->wrong("run $run->{id} of $run->{pipeline} $known->{name}: $n items run, at most $known->{concurrency} may")
		  if $n > $known->{concurrency} && $known->{item}{kind} ne 'noop';
	}
	return;
}

# --- retries ----------------------------------------------------------------------

# Of SQL tasks the policy says it all.
sub judge_retry
{
	my ($self, $run, $event) = @_;
	my $known = known_of($run, $event);
	my $task = task_of($run, $event->{task_no}, $event->{item_no});
	my ($status, $sqlstate) = ($task->{attempt}{status}, $task->{attempt}{sqlstate} // '');
	my $on = $known->{retry_on} ? $known->{retry_on}{sqlstate} : undef;

	return if $known->{kind} ne 'sql' || $known->{task_timeout} || !among($status, 'failed timed_out') || ($status eq 'failed' && !$sqlstate);
	my $allowed = !$on || ($status eq 'failed' && grep { substr($sqlstate, 0, length $_) eq $_ } @$on);
	my $expected = $run->{status} eq 'running' && $allowed && $task->{tries} < $known->{max_attempts} ? 'ready' : $status;
	$self->{seen}{ $event->{new} eq 'ready' ? 'retries' : 'failures' }++;
	$self->wrong("$event->{name}: $status ($sqlstate) at try $task->{tries} of $known->{max_attempts} in a run that is $run->{status} became $event->{new}, expected $expected")
	  if $event->{new} ne $expected;
	return;
}

# --- answers ----------------------------------------------------------------------

sub signal_of
{
	my ($run, $event) = @_;
	my $outer = $run->{definition}{tasks}[ $event->{task_no} - 1 ]{name};
	my $name = $event->{item_no} ? "$outer\[$event->{item_no}]" : $outer;

	return known_of($run, $event)->{spec}{signal} =~ s/\{\{run\.id\}\}/$run->{id}/r =~ s/\{\{task\.name\}\}/$name/r;
}

# A wait that begins does not wait for a signal that its run has.
sub judge_kept
{
	my ($self, $run, $event) = @_;
	my $known = known_of($run, $event);

	return unless $known->{kind} eq 'wait' && $known->{awaits} eq 'signal' && $run->{kept}{ signal_of($run, $event) };
	$self->{seen}{'kept signals'}++;
	$self->wrong("$event->{name}: it waits for a signal that the run has")
	  unless task_of($run, $event->{task_no}, $event->{item_no})->{answer}{ $event->{attempt_no} };
	return;
}

# What an attempt waited for came: once, and from somebody.
sub apply_answer
{
	my ($self, $run, $event) = @_;
	my $task = task_of($run, $event->{task_no}, $event->{item_no});
	my $name = $event->{name};
	my $signal = $event->{more}{signal};
	my $no = $signal // $event->{more}{no};

	$self->wrong("$name: a second answer, $no") if $task->{answer}{ $event->{attempt_no} };
	$self->wrong("$name: an answer for an attempt that is $task->{attempt}{status}") unless among($task->{attempt}{status}, 'intended started');
	$self->{seen}{ defined $signal ? 'signals' : 'approvals' }++;
	$task->{answer}{ $event->{attempt_no} } = { no => $no, approved => $event->{more}{approved} };
	return unless defined $signal;
	my $sent = $self->{facts}{sent}{$signal};
	my $expected = signal_of($run, $event);
	if (!$sent) { $self->wrong("$name: nobody sent signal $signal"); return; }
	$self->wrong("$name: waits for \"$expected\" and got \"$sent->[0]\"") if $sent->[0] ne $expected;
	$self->wrong("$name: got a signal of run $sent->[1]") if defined $sent->[1] && $sent->[1] != $run->{id};
	$self->wrong("$name: got signal $signal, which went to those who waited, again") if !defined $sent->[1] && $task->{heard}{$signal}++;
	return;
}

# An attempt of a wait ended.
sub judge_wait
{
	my ($self, $run, $event) = @_;
	my $known = known_of($run, $event);
	my $task = task_of($run, $event->{task_no}, $event->{item_no});
	my $answer = $task->{answer}{ $event->{attempt_no} };
	my ($awaits, $new) = ($known->{awaits}, $event->{new});
	my $name = "$event->{name} waited for $awaits and $new";

	if ($new eq 'succeeded')
	{
		$self->wrong("$name without an answer") if among($awaits, 'signal approval') && !$answer;
		$self->wrong("$name, though it was rejected") if $awaits eq 'approval' && $answer && !$answer->{approved};
	}
	elsif ($new eq 'failed')
	{
		$self->wrong($name) unless ($awaits eq 'approval' && $answer && !$answer->{approved}) || ($awaits eq 'sql' && $known->{spec}{sql} =~ /1 \//);
	}
	elsif ($new eq 'cancelled')
	{
		$self->wrong("$name in a run that is $run->{status}") unless $run->{status} eq 'cancelling';
	}
	elsif ($new eq 'lost')
	{
		$self->wrong("$name: nothing of it can be") if $awaits ne 'sql';
	}
	return;
}

# A task that waited for an answer has it as its output.
sub judge_answered
{
	my ($self, $event) = @_;
	my $run = $self->{runs}{ $event->{run_id} };
	my $task = task_of($run, $event->{task_no}, $event->{item_no});
	my $answer = $task->{answer}{ $event->{attempt_no} // 0 };

	return unless $event->{new} eq 'succeeded' && among(known_of($run, $event)->{awaits}, 'signal approval') && $answer;
	my $output = $event->{more}{answer} // 'nothing';
	$self->wrong("$event->{name}: the answer is $answer->{no}, the output $output") if $output ne $answer->{no};
	return;
}

# --- runs of other pipelines --------------------------------------------------------

# A run was started by a task: by one attempt, which starts no other.
sub apply_child
{
	my ($self, $run, $event) = @_;
	my ($parent_id, $no, $item_no) = @{ $run->{parent} };
	my $parent = $self->run_of($parent_id);
	my $task = task_of($parent, $no, $item_no);
	my $known = known_of($parent, { task_no => $no, item_no => $item_no });
	my $name = "$event->{name} started by run $parent_id task $no" . ($item_no ? " item $item_no" : '');

	$self->wrong("$name: it calls " . ($known->{calls} // 'nothing')) if ($known->{calls} // '') ne $run->{pipeline};
	$self->wrong("$name, which is $parent->{status}") if $parent->{status} ne 'running';
	if (!$task->{attempt} || !among($task->{attempt}{status}, 'intended started'))
	{
		$self->wrong("$name: no attempt of it goes on");
		return;
	}
	$run->{creator} = [ $parent_id, ($item_no ? "t$no\[$item_no]" : "t$no"), $task->{attempt}{no} ];
	$self->wrong("$name: its attempt $task->{attempt}{no} has started another") if $self->{created}{"@{ $run->{creator} }"}++;
	return;
}

# An attempt that waited for a run ended: as the run did.
sub judge_call
{
	my ($self, $run, $event) = @_;
	my $known = known_of($run, $event);
	my $child = $event->{more}{child};
	my $new = $event->{new};
	my $name = "$event->{name} ($known->{calls}) $new";

	if (!defined $child)
	{
		# a pipeline that was disabled is skipped, and the task succeeds
		my $code = $event->{more}{code} // '';
		$self->wrong("$name without a run: $code")
		  if among($new, 'lost failed') || ($new eq 'succeeded' && !$self->{switch}{ $known->{calls} }{was_off});
		return;
	}
	my $called = $self->{runs}{$child};
	if (!$called) { $self->wrong("$name: run $child is not there"); return; }
	$self->wrong("$name: run $child is of $called->{pipeline}") if $called->{pipeline} ne $known->{calls};
	if ($known->{detached})
	{
		$self->wrong($name) if among($new, 'failed lost');
		return;
	}
	my $ended = $called->{ended} // 'live';
	$self->{seen}{"calls $new"}++;
	my %agree = (succeeded => 'succeeded skipped', failed => 'failed timed_out aborted', cancelled => 'cancelled failed timed_out aborted',
		timed_out => 'cancelled failed timed_out aborted');
	$self->wrong("$name, but run $child is $ended") unless among($ended, $agree{$new} // '');
	return;
}

1;
