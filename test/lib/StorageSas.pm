# StorageSas.pm - shared access signatures for tests, made as the service's
# reference says and apart from weir.  They end after an hour, are
# percent-encoded, and the key is that of the account, in base64.
#
#   my $sas = account_sas('devstoreaccount1', $key);
#   my $narrow = container_sas('devstoreaccount1', $key, 'lake');

package StorageSas;

use strict;
use warnings FATAL => 'all';

use Digest::SHA qw(hmac_sha256);
use Exporter 'import';
use MIME::Base64;

our @EXPORT = qw(account_sas container_sas);

my $version = '2020-08-04';

sub escape { my ($text) = @_; $text =~ s/([^A-Za-z0-9._~-])/sprintf('%%%02X', ord $1)/ge; return $text; }

sub end_of
{
	my @t = gmtime(time + 3600);
	return sprintf('%04d-%02d-%02dT%02d:%02d:%02dZ', $t[5] + 1900, $t[4] + 1, @t[ 3, 2, 1, 0 ]);
}

sub put_together
{
	my ($key, $text, %parameters) = @_;
	$parameters{sig} = encode_base64(hmac_sha256($text, decode_base64($key)), '');
	return join('&', map { "$_=" . escape($parameters{$_}) } sort keys %parameters);
}

# For all of the account's blobs, with all rights
sub account_sas
{
	my ($account, $key) = @_;
	my %p = (sv => $version, ss => 'b', srt => 'sco', sp => 'rwdlacup', se => end_of(), spr => 'https,http');
	return put_together($key, join("\n", $account, @p{qw(sp ss srt)}, '', $p{se}, '', @p{qw(spr sv)}, ''), %p);
}

# For one container, with all rights or those given
sub container_sas
{
	my ($account, $key, $container, $rights) = @_;
	my %p = (sv => $version, sr => 'c', sp => $rights // 'racwdl', se => end_of(), spr => 'https,http');
	return put_together($key, join("\n", $p{sp}, '', $p{se}, "/blob/$account/$container", '', '', @p{qw(spr sv sr)}, ('') x 6), %p);
}

1;
