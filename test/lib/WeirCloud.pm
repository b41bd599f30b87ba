# WeirCloud.pm - starts and stops the local cloud and asks its control API.
# See test/cloud/README.md.

package WeirCloud;

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;

use WeirHelper;

my $number = 0;

# root (of the sources), dir; and optionally speed, database, port, record (a
# file; or all clouds write into files of the folder WEIR_RECORD), tls (a path:
# PATH.crt and PATH.key are what it shows at its tls_address).
sub new
{
	my ($class, %options) = @_;
	my $dir = $options{dir};
	my $file = "$dir/cloud.address";
	my @command = (
		'python3', "$options{root}/test/cloud/cloud.py",
		'--dir', $dir,
		'--port', $options{port} // 0,
		'--address-file', $file,
		'--speed', $options{speed} // 10);

	my $record = $options{record};
	$record //= "$ENV{WEIR_RECORD}/" . time . ".$$." . ++$number if $ENV{WEIR_RECORD};
	push @command, '--record', $record if defined $record;
	push @command, '--database', $options{database} if defined $options{database};
	push @command, '--certificate', "$options{tls}.crt", '--key', "$options{tls}.key", '--tls-address-file', "$file.tls" if defined $options{tls};
	unlink $file, "$file.tls";
	my $pid = start_helper("$dir/cloud.log", @command, '--end-with-parent');
	my $self = bless {
		pid => $pid,
		owner => $$,
		dir => $dir,
		file => $file,
		options => \%options,
		http => HTTP::Tiny->new(timeout => $PostgreSQL::Test::Utils::timeout_default)
	}, $class;
	$self->_write("$dir/cloud.pid", $pid);

	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	until (-s $file)
	{
		die "the local cloud did not start, see $dir/cloud.log"
		  if waitpid($pid, 1) != 0 || time > $limit;
		select(undef, undef, undef, 0.02);
	}
	$self->{address} = PostgreSQL::Test::Utils::slurp_file($file);
	return $self;
}

sub _write
{
	my ($self, $name, $text) = @_;
	open(my $stream, '>', $name) or die "$name: $!";
	print $stream $text;
	close $stream;
	return;
}

sub address { return $_[0]->{address}; }

# The same over TLS: https://127.0.0.1:PORT
sub tls_address { return PostgreSQL::Test::Utils::slurp_file("$_[0]->{file}.tls") =~ s/\s+$//r; }

# The number in front of the path: http://127.0.0.1:PORT
sub port { return ($_[0]->{address} =~ /:(\d+)$/)[0]; }

# Stop it; 'KILL' as an argument makes that a crash.
sub stop
{
	my ($self, $signal) = @_;

	return unless $self->{pid} && $self->{owner} == $$;
	kill($signal // 'TERM', $self->{pid});
	local $?;
	waitpid($self->{pid}, 0);
	unlink "$self->{dir}/cloud.pid";
	$self->{pid} = undef;
	return;
}

sub DESTROY
{
	my ($self) = @_;
	local ($@, $!);
	$self->stop;
	return;
}

# One call of the control API; the answer's JSON.
sub call
{
	my ($self, $method, $path, $value) = @_;
	my %content = defined $value
	  ? (headers => { 'Content-Type' => 'application/json' }, content => encode_json($value))
	  : ();
	my $answer = $self->{http}->request($method, "$self->{address}/_cloud/$path", \%content);

	die "$method $path: $answer->{status} $answer->{content}" unless $answer->{success};
	return decode_json($answer->{content});
}

sub _query
{
	my (%query) = @_;
	return '' unless %query;
	return '?' . HTTP::Tiny->new->www_form_urlencode(\%query);
}

# {operation => {requests => N, started => N}}; selectors as in the ledger
sub counts { my ($self, %query) = @_; return $self->call('GET', 'counts' . _query(%query)); }

# How much work an operation really began, and how often it was asked.
sub started { my ($self, $operation, %query) = @_; return $self->counts(%query)->{$operation}{started} // 0; }
sub requests { my ($self, $operation, %query) = @_; return $self->counts(%query)->{$operation}{requests} // 0; }

# Entries of the ledger; with count and timeout_ms: as soon as there are that many.
sub ledger { my ($self, %query) = @_; return $self->call('GET', 'ledger' . _query(%query)); }
sub wait { my ($self, %query) = @_; return $self->call('GET', 'wait' . _query(%query)); }

sub runs { return $_[0]->call('GET', 'runs'); }
sub lake { return $_[0]->call('GET', 'lake'); }
sub add_fault { my ($self, %fault) = @_; return $self->call('POST', 'faults', \%fault); }
# Until the fault of this id has struck; false if it never does.
sub wait_struck
{
	my ($self, $id) = @_;
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	while (time < $limit)
	{
		return 1 if grep { $_->{id} == $id && $_->{struck} } @{ $self->call('GET', 'faults')->{faults} };
		select(undef, undef, undef, 0.02);
	}
	return 0;
}
sub clear_faults { return $_[0]->call('DELETE', 'faults'); }
sub config { my ($self, %config) = @_; return $self->call('POST', 'config', \%config); }
sub reset { return $_[0]->call('POST', 'reset'); }

1;
