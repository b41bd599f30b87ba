# WeirAzurite.pm - a real storage server for tests, and a client of it that
# signs by itself.  A test that uses it has a line "# npm: azurite@VERSION".
#
#   my $azurite = WeirAzurite->new or plan skip_all => WeirAzurite::missing();
#   $azurite->put('landing/in/a.csv', 'text');
#   $azurite->names('landing');

package WeirAzurite;

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(hmac_sha256);
use HTTP::Tiny;
use IO::Socket::INET;
use MIME::Base64;
use PostgreSQL::Test::Utils;

use StorageSas;
use WeirHelper;

our $account = 'devstoreaccount1';

my $dir = $ENV{WEIR_PACKAGES} // '';

# Why there is none; undef if there is.
sub missing
{
	return 'no packages were installed' unless -d $dir;
	return PostgreSQL::Test::Utils::slurp_file("$dir/npm.missing") if -e "$dir/npm.missing";
	return 'azurite is not installed' unless -e "$dir/node_modules/azurite/package.json";
	return 'node is not installed' if system('node --version >/dev/null 2>&1') != 0;
	return undef;
}

sub free_port
{
	my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1) or die "socket: $!";
	return $socket->sockport;
}

# Which services: 'blob' unless something is said, 'queue'; of one account.
sub new
{
	my ($class, @services) = @_;
	return undef if missing();
	open(my $random, '<:raw', '/dev/urandom') or die "/dev/urandom: $!";
	read($random, my $bytes, 64) == 64 or die "/dev/urandom: $!";
	my $self = bless {
		pids => [], owner => $$, key => encode_base64($bytes, ''), bytes => $bytes, address => {},
		http => HTTP::Tiny->new(timeout => $PostgreSQL::Test::Utils::timeout_default, keep_alive => 0)
	}, $class;
	$self->_start($_) foreach @services ? @services : 'blob';
	return $self;
}

sub _start
{
	my ($self, $service) = @_;
	my $port = free_port();
	my $where = PostgreSQL::Test::Utils::tempdir();
	my $pid = fork_helper("$where/azurite.log", sub {
		$ENV{AZURITE_ACCOUNTS} = "$account:$self->{key}";
		chdir($where);
		exec 'node', "$dir/node_modules/azurite/dist/src/$service/main.js",
		  "--${service}Host", '127.0.0.1', "--${service}Port", $port,
		  '--inMemoryPersistence', '--disableTelemetry', '--silent',
		  # the SDK that sends messages speaks a newer version than there is here
		  $service eq 'queue' ? '--skipApiVersionCheck' : ();
	});
	push @{ $self->{pids} }, $pid;
	$self->{address}{$service} = "http://127.0.0.1:$port";
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	until ($self->{http}->get("$self->{address}{$service}/")->{status} != 599)
	{
		die "the storage server did not start, see $where/azurite.log" if waitpid($pid, 1) != 0 || time > $limit;
		select(undef, undef, undef, 0.05);
	}
	return;
}

sub address { my ($self, $service) = @_; return $self->{address}{ $service // 'blob' }; }
sub key { return $_[0]->{key}; }

sub DESTROY
{
	my ($self) = @_;
	local ($@, $!, $?);
	return unless $self->{owner} == $$;
	foreach my $pid (@{ $self->{pids} })
	{
		kill('KILL', $pid);
		waitpid($pid, 0);
	}
	return;
}

# One request: path without the account, query as [name, value] pairs in
# alphabetical order, x-ms-headers.  Signed here, apart from weir.
sub request
{
	my ($self, $method, $path, %with) = @_;
	my @query = @{ $with{query} // [] };
	my %headers = ('x-ms-version' => '2021-12-02', %{ $with{headers} // {} });
	my $body = $with{body} // '';
	my @t = gmtime;
	$headers{'x-ms-date'} = sprintf('%s, %02d %s %04d %02d:%02d:%02d GMT', (qw(Sun Mon Tue Wed Thu Fri Sat))[ $t[6] ],
		$t[3], (qw(Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec))[ $t[4] ], $t[5] + 1900, @t[ 2, 1, 0 ]);
	my $type = $method eq 'PUT' ? 'application/octet-stream' : '';
	my $text = join("\n", $method, '', '', length($body) || '', '', $type, ('') x 6) . "\n"
	  . join('', map { "$_:$headers{$_}\n" } sort keys %headers)
	  . "/$account/$account$path"
	  . join('', map { "\n$_->[0]:$_->[1]" } @query);
	$headers{Authorization} = "SharedKey $account:" . encode_base64(hmac_sha256($text, $self->{bytes}), '');
	$headers{'Content-Type'} = $type if $type;
	$headers{'Content-Length'} = length($body) if $method eq 'PUT';
	my $url = $self->address . "/$account$path" . (@query ? '?' . join('&', map { "$_->[0]=" . escape($_->[1]) } @query) : '');
	return $self->{http}->request($method, $url, { headers => \%headers, ($method eq 'PUT' ? (content => $body) : ()) });
}

sub escape { my ($text) = @_; $text =~ s/([^A-Za-z0-9._~-])/sprintf('%%%02X', ord $1)/ge; return $text; }

sub create_container
{
	my ($self, $name) = @_;
	my $answer = $self->request('PUT', "/$name", query => [ [ restype => 'container' ] ]);
	die "$answer->{status} $answer->{content}" unless $answer->{status} == 201;
	return;
}

sub put
{
	my ($self, $path, $text) = @_;
	my $answer = $self->request('PUT', '/' . join('/', map { escape($_) } split m{/}, $path),
		body => $text, headers => { 'x-ms-blob-type' => 'BlockBlob' });
	die "$answer->{status} $answer->{content}" unless $answer->{status} == 201;
	return $answer->{headers}{etag} =~ s/"//gr;
}

# Text of a blob, or undef
sub get
{
	my ($self, $path) = @_;
	my $answer = $self->request('GET', '/' . join('/', map { escape($_) } split m{/}, $path));
	return $answer->{success} ? $answer->{content} : undef;
}

# Names of the blobs of a container, sorted, joined by spaces
sub names
{
	my ($self, $container, $prefix) = @_;
	my $answer = $self->request('GET', "/$container",
		query => [ [ comp => 'list' ], (defined $prefix ? [ prefix => $prefix ] : ()), [ restype => 'container' ] ]);
	die "$answer->{status} $answer->{content}" unless $answer->{success};
	return join ' ', sort($answer->{content} =~ m{<Name>([^<]*)</Name>}g);
}

# An account SAS with all rights for an hour, percent-encoded
sub sas { my ($self) = @_; return account_sas($account, $self->{key}); }

1;
