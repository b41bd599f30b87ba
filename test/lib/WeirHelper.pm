# WeirHelper.pm - servers of a test that end with it, also when it is killed.
#
#   my $pid = start_helper($log, 'python3', 'server.py', ...);
#
# The server's standard input is a pipe that nobody writes to and whose other
# end only the test has: it ends when the test does, see test/cloud/parent.py.

package WeirHelper;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use POSIX ();

our @EXPORT = qw(start_helper);

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

1;
