# WeirCanaries.pm - random values that are given to weir as secrets, and the
# search for them: in files, and in the memory of processes.
#
#   my $password = canary('password', 'p@', ':/ y');	# a random core between characters that are escaped
#   canaries_absent('the log is clean', [ 'password' ], $node->logfile);
#   canaries_absent_in_memory($pid, 'the launcher', [ 'password' ]);
#   canaries_absent_in_foresight($node, [ 'password' ], "$dir/foresight");

package WeirCanaries;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IPC::Run;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(
  %core canary canaries_found canaries_absent canaries_absent_in_foresight
  memory_is_readable canaries_in_memory canaries_absent_in_memory
);

our %core;
my $chunk = 4 * 1024 * 1024;

# A random core that the search looks for, between characters that URLs, JSON
# and base64 write in their own ways.
sub canary
{
	my ($name, $before, $after) = @_;
	open(my $random, '<:raw', '/dev/urandom') or die "/dev/urandom: $!";
	read($random, my $bytes, 200) == 200 or die "/dev/urandom: $!";
	my $core = substr(encode_base64($bytes, '') =~ tr{+/=}{}dr, 0, 48);
	$core{$name} = $core;
	return ($before // '') . $core . ($after // '');
}

# Both halves of the core as they are, all of it in hex and, at the three
# places it may have among other bytes, in base64.
sub needles
{
	my ($core) = @_;
	my @forms = (substr($core, 0, 12), substr($core, -12), unpack('H*', $core), uc unpack('H*', $core));

	foreach my $before (0 .. 2)
	{
		my $skip = int(($before * 8 + 5) / 6);
		my $end = int(($before + length $core) * 8 / 6);
		push @forms, substr(encode_base64('x' x $before . $core, ''), $skip, $end - $skip);
	}
	return @forms;
}

sub names_of_needles
{
	my ($names) = @_;
	my %name_of;

	foreach my $name (@$names)
	{
		$name_of{$_} = $name foreach needles($core{$name});
	}
	return \%name_of;
}

# Names of canaries found below the paths, with the file.
sub canaries_found
{
	my ($names, @paths) = @_;
	my $name_of = names_of_needles($names);
	my @hits;

	my $file = PostgreSQL::Test::Utils::tempdir() . '/needles';
	open(my $stream, '>', $file) or die "$file: $!";
	print $stream "$_\n" foreach keys %$name_of;
	close $stream;
	my $run = IPC::Run::run([ 'grep', '-raoF', '-f', $file, @paths ], '>', \my $out, '2>', \my $err);
	foreach my $line (split /\n/, $out)
	{
		my ($where, $needle) = $line =~ /^(.*):([^:]+)$/ ? ($1, $2) : ($paths[0], $line);
		push @hits, ($name_of->{$needle} // '?') . " in $where";
	}
	my %seen;
	return grep { !$seen{$_}++ } @hits;
}

sub canaries_absent
{
	my ($what, $names, @paths) = @_;
	my @hits = canaries_found($names, @paths);

	is(scalar @hits, 0, $what) or diag(join("\n", @hits[0 .. ($#hits > 20 ? 20 : $#hits)]));
	return;
}

# All that weir.plan and weir.simulate say, of one pipeline for every connection and kind of task; it is kept in the file.
sub canaries_absent_in_foresight
{
	my ($node, $names, $file) = @_;
	my @pipelines = split /\n/, $node->safe_psql('postgres', q{SELECT DISTINCT ON (t.connection_name, t.kind) quote_literal(p.name)
		FROM weir.pipeline p JOIN weir.task t ON t.pipeline_id = p.pipeline_id AND t.version = p.current_version ORDER BY t.connection_name, t.kind, p.name});
	my $said = $node->safe_psql('postgres',
		join("\n", map { "SELECT 'plan', p.* FROM weir.plan($_) p; SELECT 'simulation', s.* FROM weir.simulate($_) s;" } @pipelines));

	open(my $stream, '>', $file) or die "$file: $!";
	print $stream $said;
	close $stream;
	is(scalar(() = $said =~ /^plan\|0\|/mg) . ' ' . scalar(() = $said =~ /^simulation\|\|\|/mg), "@{[ (scalar @pipelines) x 2 ]}", 'every start is planned and simulated');
	canaries_absent('plans and simulations are clean', $names, $file);
	return $said;
}

# --- memory

# May we look into the memory of a process of our own?
sub memory_is_readable
{
	my ($pid) = @_;
	open(my $memory, '<:raw', "/proc/$pid/mem") or return 0;
	return scalar(grep { read_memory($memory, $_->[0], 16) ne '' } writable_parts($pid, 0)) > 0;
}

# [ start, length ] of what the process may write to: its own, or what it shares
sub writable_parts
{
	my ($pid, $shared) = @_;
	my $flag = $shared ? 's' : 'p';
	no warnings 'portable';		# addresses have 64 bits
	my @parts;

	open(my $maps, '<', "/proc/$pid/maps") or return;
	while (my $line = <$maps>)
	{
		push @parts, [ hex $1, hex($2) - hex $1 ] if $line =~ /^([0-9a-f]+)-([0-9a-f]+) rw.\Q$flag\E /;
	}
	close $maps;
	return @parts;
}

sub read_memory
{
	my ($memory, $start, $length) = @_;
	my $bytes = '';

	return '' unless defined sysseek($memory, $start, 0) && defined sysread($memory, $bytes, $length);
	return $bytes;
}

# Names of canaries in the memory of a process; how many bytes were looked at.
sub canaries_in_memory
{
	my ($pid, $names, $shared) = @_;
	my $name_of = names_of_needles($names);
	my $pattern = join('|', map { quotemeta } keys %$name_of);
	my (%hits, $seen);

	open(my $memory, '<:raw', "/proc/$pid/mem") or die "/proc/$pid/mem: $!";
	foreach my $part (writable_parts($pid, $shared))
	{
		my ($start, $length) = @$part;
		# pieces overlap, so that nothing is cut in two
		for (my $at = 0; $at < $length; $at += $chunk)
		{
			my $bytes = read_memory($memory, $start + $at, $length - $at < $chunk + 256 ? $length - $at : $chunk + 256);

			$seen += length $bytes;
			$hits{ $name_of->{$1} }++ while $bytes =~ /($pattern)/g;
		}
	}
	close $memory;
	return (\%hits, $seen // 0);
}

sub canaries_absent_in_memory
{
	my ($pid, $what, $names, $shared) = @_;
	my ($hits, $seen) = canaries_in_memory($pid, $names, $shared);

	is(join(' ', sort keys %$hits), '', "no secret in the memory of $what") or diag("process $pid, $seen bytes");
	cmp_ok($seen, '>', 500_000, "which was read: $what");
	return;
}

1;
