# Servers that a test starts end with it, also when it is killed.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

pipe(my $reader, my $writer) or die "pipe: $!";
my $test = fork() // die "fork: $!";
if ($test == 0)
{
	close $reader;
	my $cloud = weir_cloud(undef);
	syswrite($writer, "$cloud->{pid}\n");
	close $writer;
	select(undef, undef, undef, undef);	# until it is killed
}
close $writer;
chomp(my $pid = <$reader>);
ok(kill(0, $pid), 'a test has a local cloud');
kill 'KILL', $test;
waitpid($test, 0);
# Who inherits it may leave it a zombie.
sub is_gone { open(my $stat, '<', "/proc/$pid/stat") or return 1; my $line = <$stat> // return 1; return $line =~ /\) Z/ }
my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
select(undef, undef, undef, 0.05) while !is_gone() && time < $limit;
ok(is_gone(), 'the test is killed, and its cloud ends');
done_testing();
