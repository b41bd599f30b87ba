# WeirRedisCuts.pm - versions for a real Redis server while the connection is
# cut at any byte of the commands or of the answers (test/cloud/streamcutter.py),
# or held there while the SQL worker, the conductor or the Redis server is
# killed.  Readers see a whole version at every one of these moments: the one
# before or the new one.
#
#   my $cuts = WeirRedisCuts->new($node);		# undef: there is no redis-server
#   $cuts->round('cut', 40, 'worker', 'server');	# 40 cuts, and two of them with a kill

package WeirRedisCuts;

use strict;
use warnings FATAL => 'all';

use IO::Socket::INET;
use IPC::Run;
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

use WeirHelper;
use WeirTest;

my $rows = 12;
my $json = JSON::PP->new->canonical->ascii;

# One look of a reader, in one moment: the version's turn, or what is wrong with it.
my $look = <<'LUA';
local current = redis.call('GET', 'cuts:current')
if not current then return 'none' end
local turn, n = nil, 0
for i = 1, tonumber(ARGV[1]) do
	local row = redis.call('HMGET', 'cuts:' .. current .. ':' .. i, 'id', 'turn', 'text')
	if row[1] ~= tostring(i) or not row[2] or row[3] ~= 'text ' .. i then return 'row ' .. i .. ' of ' .. current .. ' is not whole' end
	if turn and turn ~= row[2] then return 'two versions at once' end
	turn = row[2]
end
if redis.call('LLEN', 'cuts:index:' .. current) ~= tonumber(ARGV[1]) then return 'the index of ' .. current .. ' is not whole' end
return turn
LUA

sub new
{
	my ($class, $node) = @_;
	my $program = (grep { -x } map { "$_/redis-server" } split(/:/, $ENV{PATH}))[0] or return undef;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $self = bless { node => $node, dir => $dir, program => $program, owner => $$, port => PostgreSQL::Test::Cluster::get_free_port(), turn => 0, cuts => 0, kills => 0 }, $class;

	$self->_start;
	$self->{pids}{cutter} = fork_helper("$dir/cutter.log", sub { exec('python3', "$WeirTest::root/test/cloud/streamcutter.py", '--target', $self->{port}, '--address-file', "$dir/ports") });
	$self->_until('the cutter is there', sub { -s "$dir/ports" });
	my ($port, $control) = split / /, PostgreSQL::Test::Utils::slurp_file("$dir/ports");
	$self->{control} = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $control) or die "connect: $!";
	$self->value("SELECT weir.create_connection('redis_cuts', 'redis', 'redis://127.0.0.1:$port')");
	$self->value("SELECT weir.create_pipeline('redis_cuts', " . "'" . $json->encode({ parameters => { turn => { type => 'bigint' } },
				tasks => [ { name => 'it', kind => 'redis_publish', connection => 'redis_cuts', retry => { max_attempts => 20, initial_delay => '100 milliseconds', backoff => 'fixed', jitter => 0 },
						spec => { sql => qq{SELECT n AS id, {{params.turn}} AS turn, ''text '' || n AS text FROM generate_series(1, $rows) n},
							key => 'id', prefix => 'cuts', ttl => '1 hour', keep_old => 0, batch_rows => 5, verify => 'full' } } ] }) . "')");
	# One that takes over from another: how much goes to and fro?
	$self->_publish foreach 1, 2;
	$self->{most} = $self->_control(do => 'plan');
	$self->_publish;
	$self->{most} = $self->_control(do => 'state');
	note("a version is $self->{most}{to} bytes of commands and $self->{most}{from} of answers");
	return $self;
}

# Everything it has acknowledged is on disk, so a killed one comes back with it.
sub _start
{
	my ($self) = @_;
	$self->{pids}{server} = fork_helper("$self->{dir}/redis.log", sub { exec($self->{program}, '--bind', '127.0.0.1', '--port', $self->{port}, '--save', '', '--appendonly', 'yes',
		'--appendfsync', 'always', '--dir', $self->{dir}) });
	$self->_until('Redis answers', sub { $self->redis('PING') =~ /PONG/ });
	return;
}

sub _end
{
	my ($self, $name) = @_;
	my $pid = delete $self->{pids}{$name} or return;
	kill('KILL', $pid);
	waitpid($pid, 0);
	return;
}

sub DESTROY
{
	my ($self) = @_;
	return unless $self->{owner} == $$;
	local ($?, $@, $!);
	$self->_end($_) foreach keys %{ $self->{pids} };
	return;
}

sub value { my ($self, $sql) = @_; return $self->{node}->safe_psql('postgres', $sql) }

sub redis
{
	my ($self, @command) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'redis-cli', '-h', '127.0.0.1', '-p', $self->{port}, @command ], '<', \'', '>', \$out, '2>', \$err);
	chomp $out;
	return $out;
}

sub look { my ($self) = @_; return $self->redis('EVAL', $look, 0, $rows) }

sub _control
{
	my ($self, %wanted) = @_;
	$self->{control}->print($json->encode(\%wanted) . "\n");
	return $json->decode($self->{control}->getline);
}

sub _until
{
	my ($self, $what, $is_so) = @_;
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	until ($is_so->())
	{
		die "waited in vain until $what" if time > $limit;
		select(undef, undef, undef, 0.02);
	}
	return;
}

sub _trigger
{
	my ($self) = @_;
	$self->{turn}++;
	return $self->value("SELECT weir.trigger('redis_cuts', '{\"turn\": $self->{turn}}')");
}

sub _publish
{
	my ($self) = @_;
	my $run = $self->_trigger;
	is(wait_for_run($self->{node}, $run), 'succeeded', 'a version is published');
	return;
}

# One version, cut at a byte or held there and something killed; what is wrong.
sub cut
{
	my ($self, $direction, $after, $manner, $victim) = @_;
	my $node = $self->{node};
	my $before = $self->{turn};
	my (@wrong, $run);

	$self->_control(do => 'plan', direction => $direction, after => $after, manner => $victim ? 'freeze' : $manner);
	$run = $self->_trigger;
	if ($victim)
	{
		my $ended = sub { $self->value("SELECT status NOT IN ('queued', 'running') FROM weir.run WHERE run_id = $run") eq 't' };
		$self->_until('it is held, or all over', sub { $self->_control(do => 'state')->{frozen} || $ended->() });
		push @wrong, $self->_seen($before, 'while it is held');
		$self->{kills}++;
		if ($victim eq 'server')
		{
			$self->_end('server');
			$self->_start;
		}
		else
		{
			kill9_backend($node, $victim eq 'worker' ? 'weir SQL worker%' : 'weir conductor');
		}
		push @wrong, $self->_seen($before, 'after the kill');
	}
	my $status = wait_for_run($node, $run);
	my $was_cut = $self->_control(do => 'state')->{done};
	push @wrong, "ended $status: " . $self->value("SELECT error_message FROM weir.task_run WHERE run_id = $run") if $status ne 'succeeded';
	my $seen = $self->look;
	push @wrong, "in the end readers see $seen" if $seen ne $self->{turn};
	$self->{cuts}++ if $was_cut;
	push @wrong, $self->_left;
	return map { "$direction $after " . ($victim // $manner) . ": $_" } @wrong;
}

# What a version takes: its rows, its index, the pointer and the list of
# versions.  The version before may be left, if it is listed and will expire;
# the next one removes it.
sub _left
{
	my ($self) = @_;
	my %listed = map { $_ => 1 } split /\n/, $self->redis('HKEYS', 'cuts:versions');
	my @keys = split /\n/, $self->redis('KEYS', '*');
	my @wrong;

	return () if @keys == $rows + 3 && keys %listed == 1;
	foreach my $key (@keys)
	{
		my ($version) = $key =~ /(weir-[0-9a-f]+-\d+-\d+)/;
		push @wrong, "$key is left, but not listed" if $version && !$listed{$version};
		push @wrong, "$key does not expire" if $self->redis('TTL', $key) < 0;
	}
	$self->_control(do => 'plan');
	wait_for_run($self->{node}, $self->_trigger);
	@keys = split /\n/, $self->redis('KEYS', '*');
	push @wrong, 'the next version does not remove ' . join(' ', @keys) if @keys != $rows + 3;
	push @wrong, "after the next version readers see " . $self->look if $self->look ne $self->{turn};
	$self->{left}++;
	return @wrong;
}

sub _seen
{
	my ($self, $before, $when) = @_;
	my $seen = $self->look;
	return $seen eq $before || $seen eq $self->{turn} ? () : "$when readers see $seen";
}

# N cuts at bytes that srand() decides, the last ones with a kill each.
sub round
{
	my ($self, $name, $n, @victims) = @_;
	my $before = $self->{cuts};
	my @wrong;

	foreach my $i (1 .. $n)
	{
		my $position = int(rand($self->{most}{to} + $self->{most}{from}));
		my @where = $position < $self->{most}{to} ? ('to', $position) : ('from', $position - $self->{most}{to});
		push @wrong, $self->cut(@where, $i % 2 ? 'reset' : 'close', $i > $n - @victims ? $victims[ $n - $i ] : undef);
	}
	is(join("\n", @wrong), '', "$name, redis: $n versions, whole for their readers at any time" . (@victims ? ', also when something is killed' : ''));
	return $self->{cuts} - $before;
}

1;
