# JudgeEnd.pm - what Judge.pm asks of the end of a cycle: what was played is
# there and nothing else, nothing is left over, and work was done once, here and
# in the cloud.  See Judge.pm.

package Judge;

use strict;
use warnings FATAL => 'all';

our %is_final;

# What begins work, in the ledger.
my $starting = 'adf.createRun databricks.run-now databricks.submit databricks.execute databricks.invoke http.json http.job-start';

# What was played is what is there, and nothing is left over.
sub compare
{
	my ($self) = @_;
	my $facts = $self->{facts};

	foreach my $id (sort keys %{ $facts->{runs} })
	{
		$self->wrong("run $id is there, but its trigger was not committed") unless $facts->{asked}{$id} xor $self->run_of($id)->{creator};
		$self->wrong("run $id is $facts->{runs}{$id} at the end") unless $is_final{ $facts->{runs}{$id} };
		my $played = $self->run_of($id)->{status};
		$self->wrong("run $id is $facts->{runs}{$id}, but became $played") if $facts->{runs}{$id} ne $played;
	}
	foreach my $id (sort keys %{ $facts->{asked} })
	{
		$self->wrong("run $id ($facts->{asked}{$id}) was committed, but is not there") unless $facts->{runs}{$id} || $self->run_of($id)->{gone};
	}
	foreach my $id (sort keys %{ $self->{runs} })
	{
		$self->wrong("run $id of an earlier cycle changed") if $id <= $facts->{after};
		$self->wrong("run $id is there, though it was removed") if $self->{runs}{$id}{gone} && $facts->{runs}{$id};
	}
	foreach my $task (@{ $facts->{tasks} })
	{
		my ($id, $no, $item_no, $name, $status) = @$task;
		my $played = task_of($self->run_of($id), $no, $item_no)->{status};
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
	foreach my $pool (sort keys %{ $facts->{pools} })
	{
		$self->wrong("pool $pool: $facts->{pools}{$pool} are left") if $facts->{pools}{$pool} > 0;
	}
	foreach my $process ('weir conductor', 'weir launcher')
	{
		my $n = $facts->{processes}{$process} // 0;
		$self->wrong("$n of $process") if $n != 1;
	}
	return;
}

# --- work ---------------------------------------------------------------------------

# Each attempt's at most once, each success's once, and none that nobody
# intended.
sub work
{
	my ($self) = @_;
	my $facts = $self->{facts};
	my (%effects, %started, %repairs, %tokens, %repairing);

	$self->read_decisions;

	foreach my $effect (@{ $facts->{effects} })
	{
		my ($id, $task, $no, $audit) = @$effect;
		my $expected = $self->run_of($id)->{audit} // 'null';

		$effects{"$id $task $no"}++;
		$self->wrong("run $id task $task attempt $no: it worked with row audit id $audit, expected $expected") if $audit ne $expected;
	}
	foreach my $entry (grep { $_->{started} } @{ $self->{ledger} })
	{
		my $operation = $entry->{operation};
		my $token = $entry->{weir_token} // $entry->{idempotency_token};

		if ($operation eq 'databricks.repair') { $repairs{ $entry->{run_id} }++; }
		elsif (among($operation, $starting)) { $started{ $token // 'no token' }++ unless ($token // '') =~ /^by hand/; }
	}
	foreach my $attempt (@{ $facts->{attempts} })
	{
		my ($id, $task, $no, $kind, $status, $token, $mode, $external) = @$attempt;
		my $name = "run $id task $task attempt $no ($kind, $status, $token)";

		$self->wrong("$name: token used twice") if $tokens{$token}++;
		if ($kind eq 'sql' || $kind eq 'for_each')
		{
			my $n = delete($effects{"$id $task $no"}) // 0;
			my $expected = $kind eq 'sql' ? $status eq 'succeeded' : $self->lists($id, $task, $status);
			$self->{seen}{"$kind rows"} += $n;
			$self->wrong("$name: $n rows") if $n != ($expected ? 1 : 0);
		}
		$repairing{$external}++ if defined $mode && $mode eq 'repair' && defined $external;
		# A model knows an attempt by its request id only.
		my $known_as = $kind eq 'databricks_serving' ? "$id $task $no" : $token;
		my $n = $started{$known_as} // 0;
		$tokens{$known_as} //= 1;
		$self->{seen}{"$kind begun"} += $n;
		$self->work_of_engine($name, $attempt, $n);
		$self->work_of_wait($name, $attempt) if $kind eq 'wait';
		$self->{child_of}{"$id $task $no"} = $attempt->[9] if $kind eq 'pipeline';
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
	$self->work_of_answers;
	$self->work_of_calls;
	$self->work_of_retention;
	return;
}

# Does this attempt of a for_each list its items by a statement?  The first
# that succeeds does; after it they are there, unless there are none.
sub lists
{
	my ($self, $id, $task, $status) = @_;
	my ($no) = $task =~ /^t(\d+)$/;
	my $run = $self->{runs}{$id};

	return 0 if $status ne 'succeeded' || !$run->{definition}{tasks}[ $no - 1 ]{listed};
	return 1 unless %{ $run->{tasks}{$no}{items} };
	return !$self->{has_list}{"$id $no"}++;
}

# A time is not over before it is, whatever crashed in between.
sub work_of_wait
{
	my ($self, $name, $attempt) = @_;
	my ($status, $ended, $intended, $due, $spec) = @$attempt[ 4, 10, 11, 12, 13 ];

	return unless $status eq 'succeeded' && defined $due;
	$self->{seen}{times}++;
	$self->wrong(sprintf('%s: ended %.1f ms before its time', $name, $due - $ended)) if $ended < $due;
	$self->wrong(sprintf('%s: its time is %.1f ms after its intent', $name, $due - $intended))
	  if defined $spec->{for} && $due - $intended < $spec->{for} * 1000 - 20;
	return;
}

# Whoever was seen waiting and got an answer, has it or was ended by another.
sub work_of_answers
{
	my ($self) = @_;

	foreach my $answered (@{ $self->{facts}{answered} })
	{
		my ($id, $task, $attempt_no, $no, $what, $status, $has_answer, $comment) = @$answered;
		my $name = "run $id task $task attempt $attempt_no: $what $no";

		$self->wrong("$name was lost, it $status") unless $has_answer || among($status, 'cancelled timed_out');
		$self->wrong("$name, but $comment was taken") if $what ne 'signal' && $has_answer && ($comment // '') ne $no;
	}
	return;
}

# The attempt that started a run is the one that says so.
sub work_of_calls
{
	my ($self) = @_;

	foreach my $run (grep { $_->{creator} } values %{ $self->{runs} })
	{
		next if $run->{gone};
		my $named = $self->{child_of}{"@{ $run->{creator} }"} // 'none';
		$self->wrong("run $run->{id} was started by @{ $run->{creator} }, which names run $named") if $named ne $run->{id};
	}
	return;
}

1;
