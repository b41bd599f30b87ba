# Servers that a test starts end with it, also when it is killed: the local
# cloud, which looks for its end itself, and somebody else's, which do not.
# npm: azurite@3.35.0

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;
use Test::More;

use WeirAzurite;
use WeirHelper;
use WeirTest;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $redis_program = (grep { -x } map { "$_/redis-server" } split(/:/, $ENV{PATH}))[0];

pipe(my $reader, my $writer) or die "pipe: $!";
my $test = fork() // die "fork: $!";
if ($test == 0)
{
	close $reader;
	my $cloud = weir_cloud(undef);
	my %servers = ('its local cloud' => $cloud->{pid});
	$servers{'its cutter'} = fork_helper("$dir/cutter.log", sub { exec 'python3', "$WeirTest::root/test/cloud/cutter.py", '--target', $cloud->port, '--address-file', "$dir/cutter" });
	$servers{'a server written in the test'} = fork_helper("$dir/own.log", sub { close $writer; select(undef, undef, undef, undef) });
	$servers{'its Redis'} = fork_helper("$dir/redis.log", sub { exec $redis_program, '--port', 0, '--unixsocket', "$dir/redis", '--save', '', '--dir', $dir }) if defined $redis_program;
	my $azurite = WeirAzurite::missing() ? undef : WeirAzurite->new('blob', 'queue');
	@servers{'its storage server', 'the queues of it'} = @{ $azurite->{pids} } if $azurite;
	select(undef, undef, undef, 0.02) until -s "$dir/cutter" && (!defined $redis_program || -S "$dir/redis");
	syswrite($writer, join('', map { "$servers{$_} $_\n" } sort keys %servers));
	close $writer;
	select(undef, undef, undef, undef);	# until it is killed
}
close $writer;
my %servers = map { /^(\d+) (.+)$/ ? ($2 => $1) : () } <$reader>;
cmp_ok(scalar keys %servers, '>=', 3, 'a test has servers: ' . join(', ', sort keys %servers));

# Who inherits it may leave it a zombie.
sub is_gone { my ($pid) = @_; open(my $stat, '<', "/proc/$pid/stat") or return 1; my $line = <$stat> // return 1; return $line =~ /\) Z/ }
sub watchers { my ($pid) = @_; open(my $list, '<', "/proc/$pid/task/$pid/children") or return (); return split(' ', <$list> // '') }

my @watchers = map { watchers($_) } values %servers;
ok(!is_gone($servers{$_}), "$_ is there") foreach sort keys %servers;
kill 'KILL', $test;
waitpid($test, 0);
my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
foreach (sort keys %servers)
{
	select(undef, undef, undef, 0.05) while !is_gone($servers{$_}) && time < $limit;
	ok(is_gone($servers{$_}), "the test is killed, and $_ ends");
}
select(undef, undef, undef, 0.05) while (grep { !is_gone($_) } @watchers) && time < $limit;
is(scalar(grep { !is_gone($_) } @watchers), 0, 'and nobody who looked after them stays');
done_testing();
