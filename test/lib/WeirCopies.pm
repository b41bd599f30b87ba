# WeirCopies.pm - copies that a storage account makes in its own time, given up
# while they are under way, or whose source changes or goes meanwhile; with
# exchanges cut as in WeirCuts, each at a byte of its own.
#
#   my $copies = WeirCopies->new($node, $cloud);
#   $copies->measure;
#   $copies->give_up({ pmove => 12 }, manners => [ 'reset', 'close' ]);
#   $copies->give_up({ ... }, manners => ['freeze'], kill => 1);	# all held, then kill -9
#   $copies->disturb('change', { pmove => 12 }, manners => [ 'reset', 'close' ]);
#
# However it ends: of each file there is a whole one, under the old name or the
# new one, and under the new one nothing that is not whole; nothing is being
# copied any more, and no copy was begun twice.

package WeirCopies;

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use Test::More;

use WeirSteps;
use WeirTest;

our @ISA = ('WeirSteps');

my $json = JSON::PP->new->canonical->ascii;
my $older = join('', map { "row $_\n" } 1 .. 50);		# as WeirSteps puts it
my $newer = join('', map { "ROW $_\n" } 1 .. 50);		# as long, so that only an MD5 or an ETag tells
my $ours = '/(?:out|done)/[12]\.csv$';

# What can be cut: method and pattern of the path, and the how manieth of a caller's.
my %exchanges = (
	look => [ 'HEAD', '/in/1\.csv$' ],
	there => [ 'HEAD', $ours ],
	copy => [ 'PUT', $ours ],
	poll => [ 'HEAD', $ours, 1 ],
	again => [ 'HEAD', $ours, 2 ],
	abort => [ 'PUT', '\?comp=copy&copyid=' ],
	aborted => [ 'HEAD', $ours, 3 ],
	remove => [ 'DELETE', $ours ]);

sub new
{
	my ($class, $node, $cloud) = @_;
	my $self = WeirSteps::new($class, $node, $cloud);
	$self->{number} = 2_000_000;	# beside the others
	return $self;
}

sub _plan_copies
{
	my ($self, $cuts, @names) = @_;
	my @rules = map { my $name = $_; map { my ($method, $path, $nth) = @{ $exchanges{$_} };
			{ name => "$name $_", callers => "$name-", method => $method, path => $path, nth => ($nth // 0) + 0 } } sort keys %exchanges } @names;
	$self->call('POST', 'plan', { rules => \@rules, cuts => $cuts });
	return;
}

# The cloud's pace for copies: long enough that nothing ends by itself, or quick.
sub _pace { my ($self, $seconds) = @_; $self->{cloud}->config(copy_seconds => $seconds); return }

# As WeirSteps has it, whose rounds use the same cloud.
sub restore { my ($self) = @_; return $self->_pace($WeirSteps::copying) }

# A cut for each caller: the exchanges named take turns, at any byte.
sub _deal_cuts
{
	my ($self, $callers, $manners, @which) = @_;
	my (%plan, %cut);

	foreach my $name (sort keys %$callers)
	{
		foreach my $caller (@{ $callers->{$name} })
		{
			my $which = $which[ $self->{turns}{"$name @which"}++ % @which ];
			my ($request, $response) = @{ $self->{lengths}{"$name $which"} // [ 600, 300 ] };
			my $at = int(rand($request + $response));
			$cut{$caller} = [ $which, $at <= $request ? ('request', $at) : ('response', $at - $request), $manners->[ rand @$manners ] ];
			$plan{$caller} = { "$name $which" => [ @{ $cut{$caller} }[ 1 .. 3 ] ] };
		}
	}
	return (\%plan, \%cut);
}

sub _note_lengths
{
	my ($self) = @_;
	my $lengths = $self->call('GET', 'state')->{lengths};
	foreach my $rule (keys %$lengths)
	{
		my $known = $self->{lengths}{$rule} //= [ 0, 0 ];
		$known->[$_] = $known->[$_] > $lengths->{$rule}[$_] ? $known->[$_] : $lengths->{$rule}[$_] foreach (0, 1);
	}
	return;
}

sub measure
{
	my ($self, @names) = @_;
	$self->give_up({ map { $_ => 2 } @names }, name => 'measured', plain => 1);
	note(join(' ', map { "$_: $self->{lengths}{$_}[0]/$self->{lengths}{$_}[1]" } sort keys %{ $self->{lengths} }));
	return;
}

sub _begin
{
	my ($self, $wanted, $options, @which) = @_;
	my %callers = map { $_ => [ $self->define($_, $wanted->{$_}) ] } sort keys %$wanted;
	my ($plan, $cut) = $options->{plain} ? ({}, {}) : $self->_deal_cuts(\%callers, $options->{manners}, @which);
	my %run;

	$self->_plan_copies($plan, sort keys %$wanted);
	$self->{since} = $self->_newest;
	$self->_trigger(\%run, map { @$_ } values %callers);
	return (\%callers, $cut, \%run);
}

# The runs of these callers in which a copy is under way, or which are over.
sub _busy
{
	my ($self, @runs) = @_;
	my $runs = join(', ', @runs);
	return $self->value("SELECT count(*) FROM weir.run r WHERE run_id IN ($runs) AND (status NOT IN ('queued', 'running', 'cancelling') OR EXISTS "
		  . "(SELECT FROM weir.attempt a WHERE a.run_id = r.run_id AND a.status = 'started' AND a.external_run_id IS NOT NULL))");
}

# Runs are cancelled while their first file is being copied.
sub give_up
{
	my ($self, $wanted, %options) = @_;
	my $node = $self->{node};
	my $what = $options{name} // 'given up';

	$self->_pace(100_000);
	# what is held stays so: first what comes before the cancel, in a round of its own what comes after it
	my @before = ('look', 'there', 'copy', 'poll');
	my @after = ('again', 'abort', 'aborted', 'remove');
	foreach my $which ($options{plain} ? [] : $options{kill} ? (\@before, \@after) : [ @before, @after ])
	{
		my ($callers, $cut, $run) = $self->_begin($wanted, \%options, @$which);
		my $runs = join(', ', values %$run);
		my $is_after = $options{kill} && $which == \@after;
		my $n = values %$run;

		$self->_wait('a copy is under way, or held', sub { return $self->_busy(values %$run) + ($options{kill} && !$is_after ? $self->_held : 0) >= $n });
		$self->value("SELECT weir.cancel(run_id) FROM weir.run WHERE run_id IN ($runs) AND status IN ('queued', 'running') ORDER BY run_id");
		$self->_wait('what follows is held, or over', sub { return $self->_held + $self->value("SELECT count(*) FROM weir.run WHERE run_id IN ($runs) AND status NOT IN ('running', 'cancelling')") >= $n })
		  if $is_after;
		if ($options{kill})
		{
			$self->{held} += $self->_held;
			$self->_kill;
		}
		wait_until($node, 'all have ended', "SELECT count(*) = 0 FROM weir.run WHERE run_id IN ($runs) AND status IN ('queued', 'running', 'cancelling')")
		  or diag($self->_unfinished($runs));
		$self->_note_lengths;
		$self->_judge_copies($callers, $cut, $run, $what, sub { return $_[0] ne 'cancelled' ? "ended $_[0]" : () });
	}
	return $self->{cut_so_far};
}

# While files are being copied their sources change, or go.
sub disturb
{
	my ($self, $how, $wanted, %options) = @_;
	my $node = $self->{node};
	my @before = ('there', 'copy', 'poll');
	my @after = ('again', 'remove');

	foreach my $which ($options{kill} ? (\@before, \@after) : [ @before, @after ])
	{
		$self->_pace(100_000);
		my ($callers, $cut, $run) = $self->_begin($wanted, \%options, @$which);
		my $runs = join(', ', values %$run);
		my $is_after = $options{kill} && $which == \@after;
		my $n = values %$run;
		my $ended = "SELECT count(*) FROM weir.run WHERE run_id IN ($runs) AND status NOT IN ('queued', 'running', 'cancelling')";

		$self->_wait('a copy is under way, or held', sub { return $self->_busy(values %$run) + $self->_held >= $n });
		foreach my $caller (map { @$_ } values %$callers)
		{
			$how eq 'change' ? $self->put_unlike($caller, 0, $newer) : do { $self->lake('DELETE', "/$caller/in/$_.csv") foreach 1, 2 };
		}
		$self->_pace(1);
		$self->_wait('what follows is held, or over', sub { return $self->_held + $self->value($ended) >= $n }) if $is_after;
		if ($options{kill})
		{
			$self->{held} += $self->_held;
			$self->_kill;
		}
		wait_until($node, 'all have ended', "SELECT ($ended) = $n") or diag($self->_unfinished($runs));
		$self->_judge_copies($callers, $cut, $run, "$how" . ($options{kill} ? ', kill' : ''), $how eq 'change'
			? sub { return $_[0] ne 'succeeded' ? "ended $_[0]" : () }
			: sub { return $_[0] !~ /^failed (?:file_missing|copy_failed)$/ ? "ended $_[0]" : () }, $how);
	}
	return;
}

sub _unfinished
{
	my ($self, $runs) = @_;
	return $self->value("SELECT r.status, p.name, a.step, a.external_run_id, a.kind_state FROM weir.run r JOIN weir.pipeline p USING (pipeline_id) LEFT JOIN weir.attempt a USING (run_id) "
		  . "WHERE run_id IN ($runs) AND r.status IN ('queued', 'running', 'cancelling') LIMIT 20");
}

# name -> content below a caller's name
sub _files
{
	my ($self, $caller) = @_;
	my @names = $self->lake('GET', "?restype=container&comp=list&prefix=$caller/") =~ m{<Name>([^<]*)</Name><Properties>(?:(?!</Properties>).)*<ResourceType>file<}g;
	return { map { (substr($_, length("$caller/")) => $self->lake('GET', "/$_")) } @names };
}

sub _judge_copies
{
	my ($self, $callers, $cut, $run, $what, $ends, $how) = @_;
	my $content = ($how // '') eq 'change' ? $newer : $older;
	my %ended = map { split /\|/ } split /\n/, $self->value('SELECT r.run_id, r.status || CASE WHEN r.status = \'failed\' THEN \' \' || coalesce((SELECT code FROM weir.error e WHERE e.run_id = r.run_id ORDER BY error_id DESC LIMIT 1), \'\') ELSE \'\' END FROM weir.run r WHERE run_id IN ('
		  . join(', ', values %$run) . ')');
	my %copies;
	push @{ $copies{ $_->{caller} } }, $_ foreach grep { defined $_->{caller} } @{ $self->{cloud}->ledger(operation => 'hns.copy', since => $self->{since}, started => 'true') };

	foreach my $name (sort keys %$callers)
	{
		my $folder = $name eq 'parchive' ? 'done' : 'out';
		my @wrong;
		foreach my $caller (@{ $callers->{$name} })
		{
			my $files = $self->_files($caller);
			my @what = $ends->($ended{ $run->{$caller} });
			my %at;

			foreach my $no (1, 2)
			{
				my ($source, $target) = @$files{ "in/$no.csv", "$folder/$no.csv" };
				push @what, "$no.csv is lost" if !defined $source && !defined $target && ($how // '') ne 'remove';
				push @what, "$folder/$no.csv has " . length($target) . ' bytes that it should not have' if defined $target && $target ne $content;
				push @what, "in/$no.csv is not what it was" if defined $source && $source ne $content;
				push @what, "in/$no.csv is still there, or its copy is not" if ($how // '') eq 'change' && (!defined $target || defined $source != ($name eq 'pcopy'));
			}
			foreach my $copy (@{ $copies{$caller} // [] })
			{
				push @what, "a copy goes on" if $copy->{copy_status} eq 'pending';
				push @{ $at{ $copy->{path} } }, $copy->{copy_status};
			}
			foreach my $path (keys %at)
			{
				push @what, "$path was copied twice: @{ $at{$path} }" if 1 < grep { $_ ne 'failed' } @{ $at{$path} };
			}
			push @wrong, "$caller " . $json->encode($cut->{$caller} // []) . ": $_" foreach @what;
		}
		is(join("\n", @wrong), '', "$what, $name: of " . @{ $callers->{$name} } . ' runs nothing is lost, half made or made twice');
	}
	$self->{cuts} += $self->{cut_so_far} = @{ $self->call('GET', 'state')->{done} };
	return;
}

1;
