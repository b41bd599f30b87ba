# WeirFarEnd.pm - a private authority, a TLS server whose certificate it
# signed, and a proxy; see far_end.py.
#
#   my $far = WeirFarEnd->new;
#   $far->ca                      PEM of the authority; $far->ca_file its path
#   $far->url('tls')              https://localhost:PORT; also plain, proxy, tls_proxy (at 127.0.0.1)
#   $far->ledger                  {tls => [ports of connections], requests => [...], connects => [...]}
#   $far->reset; $far->proxy('403' | 'close' | 'silent' | 'open' | 'user=USER:PASSWORD' | 'ways=Digest,Basic')
#   $far->value('what secrets of its vault hold')

package WeirFarEnd;

use strict;
use warnings FATAL => 'all';

use File::Basename qw(dirname);
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use POSIX ();
use PostgreSQL::Test::Utils;

use WeirHelper;
use WeirSignIn;

sub openssl
{
	my (@arguments) = @_;
	my ($out, $err);
	IPC::Run::run([ 'openssl', @arguments ], '<', \undef, '>', \$out, '2>', \$err) or die "openssl @arguments: $err";
	return;
}

# An authority of nobody else's: NAME.crt, NAME.key.
sub make_authority
{
	my ($base, $name) = @_;
	openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$base.key", '-out', "$base.crt", '-days', '30',
		'-subj', "/CN=$name", '-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign');
	return file_text("$base.crt");
}

sub new
{
	my ($class, %options) = @_;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $self = bless { dir => $dir, owner => $$, http => HTTP::Tiny->new(timeout => $PostgreSQL::Test::Utils::timeout_default) }, $class;

	$self->{ca} = make_authority("$dir/ca", 'weir test authority');
	$self->{stranger} = make_authority("$dir/stranger", 'somebody else');
	my $names = $options{names} // 'DNS:localhost,IP:127.0.0.1,IP:::1';
	write_file("$dir/extensions", "subjectAltName=$names\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n");
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-keyout', "$dir/server.key", '-out', "$dir/server.csr", '-subj', '/CN=localhost');
	openssl('x509', '-req', '-in', "$dir/server.csr", '-CA', "$dir/ca.crt", '-CAkey', "$dir/ca.key", '-CAcreateserial',
		'-days', '30', '-extfile', "$dir/extensions", '-out', "$dir/server.crt");
	my $program = dirname(__FILE__) . '/far_end.py';
	my $pid = start_helper("$dir/far_end.log", 'python3', $program, $dir);
	$self->{pid} = $pid;
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	until (-s "$dir/ports.json")
	{
		die 'the far end did not start: ' . file_text("$dir/far_end.log") if waitpid($pid, 1) != 0 || time > $limit;
		select(undef, undef, undef, 0.02);
	}
	$self->{ports} = decode_json(file_text("$dir/ports.json"));
	return $self;
}

sub ca { return $_[0]->{ca} }
sub ca_file { return "$_[0]->{dir}/ca.crt" }
sub stranger { return $_[0]->{stranger} }
sub port { return $_[0]->{ports}{ $_[1] } }

sub url
{
	my ($self, $what) = @_;
	my $port = $self->port($what) // return;
	return "https://localhost:$port" if $what eq 'tls';
	return "https://[::1]:$port" if $what eq 'tls6';
	return ($what eq 'tls_proxy' ? 'https' : 'http') . "://127.0.0.1:$port";
}

sub control
{
	my ($self, $method, $path) = @_;
	my $answer = $self->{http}->request($method, $self->url('control') . $path);
	die "$method $path: $answer->{status}" unless $answer->{success};
	return decode_json($answer->{content});
}

sub ledger { return $_[0]->control('GET', '/ledger') }
sub reset { $_[0]->control('POST', '/reset'); return }
sub in_path { my ($text) = @_; return $text =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ger }
sub proxy { $_[0]->control('POST', '/proxy/' . in_path($_[1])); return }
sub value { $_[0]->control('POST', '/value/' . in_path($_[1])); return }
# Requests whose path is this
sub requests { my ($self, $path) = @_; return grep { $_->{path} eq $path } @{ $self->ledger->{requests} } }

sub stop
{
	my ($self) = @_;
	return unless $self->{pid} && $self->{owner} == $$;
	kill('TERM', $self->{pid});
	local $?;
	waitpid($self->{pid}, 0);
	$self->{pid} = undef;
	return;
}

sub DESTROY { my ($self) = @_; local ($@, $!); $self->stop; return }

1;
