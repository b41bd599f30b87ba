# WeirNames.pm - servers for which a test is the name service.
#
#   plan skip_all => $_ foreach WeirPreload::missing();
#   my $names = WeirNames->new;
#   $names->answer('moved.example' => '127.0.0.1');      # from now on; all other names are as ever
#   $names->start($node);                                # which has not been started
#   $names->asked('moved.example');                      # how often, by all its processes

package WeirNames;

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Utils;

use WeirPreload;

sub new
{
	my ($class) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/names';
	my $self = bless { library => WeirPreload::build('name_answers'), file => $file, answers => {} }, $class;

	$self->_write($file, '');
	$self->_write("$file.asked", '');
	return $self;
}

# At once: whoever reads it sees the old answers or the new ones.
sub _write
{
	my ($self, $path, $text) = @_;
	open(my $stream, '>', "$path.new") or die "$path: $!";
	print $stream $text;
	close $stream;
	rename("$path.new", $path) or die "$path: $!";
	return;
}

sub answer
{
	my ($self, $name, $address) = @_;
	$self->{answers}{$name} = $address;
	$self->_write($self->{file}, join('', map { "$_ $self->{answers}{$_}\n" } sort keys %{ $self->{answers} }));
	return;
}

sub asked
{
	my ($self, $name) = @_;
	return scalar grep { $_ eq $name } split /\n/, PostgreSQL::Test::Utils::slurp_file("$self->{file}.asked");
}

sub start { my ($self, $node) = @_; WeirPreload::start($node, $self->{library}, NAME_ANSWERS_FILE => $self->{file}); return; }

1;
