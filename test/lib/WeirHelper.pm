# WeirHelper.pm - servers of a test that end with it, also when it is killed.
#
#   my $pid = start_helper($log, 'python3', 'server.py', ...);	# one of ours
#   my $pid = fork_helper($log, sub { exec 'redis-server', ... });	# any
#
# The standard input of a server of ours is a pipe that nobody writes to and
# whose other end only the test has: it ends when the test does, see
# test/cloud/parent.py.  Somebody else's does not look there; so a child of it
# does, and kills it.  That it still is our parent then says that it is the one.

package WeirHelper;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use POSIX ();

our @EXPORT = qw(start_helper fork_helper);

my @ends;						# closed when we are no more, and by every exec

sub start_helper
{
	my ($log, @command) = @_;
	pipe(my $theirs, my $ours) or die "pipe: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open(STDIN, '<&', $theirs);
		open(STDOUT, '>>', $log);
		open(STDERR, '>&', \*STDOUT);
		exec @command or POSIX::_exit(127);
	}
	close $theirs;
	push @ends, $ours;
	return $pid;
}

sub fork_helper
{
	my ($log, $run) = @_;
	pipe(my $theirs, my $ours) or die "pipe: $!";
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		close $_ foreach @ends, $ours;
		@ends = ();
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', $log);
		open(STDERR, '>&', \*STDOUT);
		_watch($theirs, $$);
		close $theirs;
		$run->();
		POSIX::_exit(127);
	}
	close $theirs;
	push @ends, $ours;
	return $pid;
}

# Nobody else's pipe is held open by who waits here.
sub _watch
{
	my ($end, $server) = @_;
	my $watcher = fork() // POSIX::_exit(127);
	return if $watcher;
	foreach (3 .. 255)
	{
		POSIX::close($_) unless $_ == fileno($end);
	}
	chdir '/';
	sysread($end, my $nothing, 1);
	kill 'KILL', $server if getppid() == $server;
	POSIX::_exit(0);
}

1;
