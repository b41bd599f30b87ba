# WeirSignIn.pm - what the tests of sign-in share: keys, certificates and JWTs
# made with the openssl program, tasks whose sign-in is what matters, and npm
# packages in a scratch folder.

package WeirSignIn;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use IPC::Run;
use JSON::PP;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;

use WeirTest;

our @EXPORT = qw(
  base64url file_text write_file literal
  make_certificate certificate_key make_jwt
  create_connection create_secret run_task task_error azure_services
);

my $json = JSON::PP->new->canonical;
my $number = 0;

sub base64url { return encode_base64($_[0], '') =~ tr{+/=}{-_}dr; }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'"; }

sub file_text { return PostgreSQL::Test::Utils::slurp_file($_[0]); }

# At once: whoever reads it sees the old text or the new one.
sub write_file
{
	my ($path, $text) = @_;
	open(my $stream, '>', "$path.new") or die "$path: $!";
	binmode $stream;
	print $stream $text;
	close $stream;
	rename("$path.new", $path) or die "$path: $!";
	return;
}

sub openssl
{
	my (@arguments) = @_;
	my ($out, $err);
	IPC::Run::run([ 'openssl', @arguments ], '<', \undef, '>', \$out, '2>', \$err)
	  or die "openssl @arguments: $err";
	return $out;
}

# A key and a certificate of its own, "expired" or not: NAME.key, NAME.crt,
# NAME.pfx (with the password given).  Returns the path without the suffix.
sub make_certificate
{
	my ($name, %options) = @_;
	my $base = PostgreSQL::Test::Utils::tempdir() . "/$name";

	openssl('genrsa', '-out', "$base.key", $options{bits} // 2048);
	openssl('req', '-new', '-key', "$base.key", '-subj', "/CN=$name", '-out', "$base.csr");
	if ($options{expired})
	{
		# only "ca" takes dates, in all versions
		write_file("$base.index", '');
		write_file("$base.serial", "01\n");
		write_file("$base.conf", "[ca]\ndefault_ca = c\n[c]\ndatabase = $base.index\nserial = $base.serial\nnew_certs_dir = "
			  . PostgreSQL::Test::Utils::tempdir() . "\ndefault_md = sha256\npolicy = p\n[p]\ncommonName = supplied\n");
		openssl('ca', '-batch', '-config', "$base.conf", '-selfsign', '-keyfile', "$base.key", '-in', "$base.csr", '-notext',
			'-startdate', '20200101000000Z', '-enddate', '20200102000000Z', '-out', "$base.crt");
	}
	else
	{
		openssl('x509', '-req', '-in', "$base.csr", '-signkey', "$base.key", '-days', 2, '-out', "$base.crt");
	}
	openssl('pkcs12', '-export', '-inkey', "$base.key", '-in', "$base.crt", '-out', "$base.pfx",
		'-passout', 'pass:' . ($options{password} // ''));
	openssl('pkcs8', '-topk8', '-in', "$base.key", '-out', "$base.locked", '-passout', "pass:$options{password}")
	  if $options{password};
	return $base;
}

# What a service has to know of it
sub certificate_key
{
	my ($base) = @_;
	my $out = openssl('x509', '-in', "$base.crt", '-noout', '-modulus', '-fingerprint', '-sha256');
	my ($modulus) = $out =~ /^Modulus=([0-9A-F]+)$/m;
	my ($print) = $out =~ /Fingerprint=([0-9A-F:]+)$/m;
	$print =~ tr/://d;
	return { 'x5t#S256' => base64url(pack('H*', $print)), n => $modulus, e => 65537 };
}

# Of an issuer that is not weir
sub make_jwt
{
	my ($base, %claims) = @_;
	my $signed = join('.', map { base64url($json->encode($_)) } { alg => 'RS256', typ => 'JWT' }, \%claims);
	write_file("$base.signed", $signed);
	return $signed . '.' . base64url(openssl('dgst', '-sha256', '-sign', "$base.key", "$base.signed"));
}

sub create_secret
{
	my ($node, $name, $value) = @_;
	$node->safe_psql('postgres', "SELECT weir.create_secret('$name', " . literal($value) . ')');
	return;
}

sub create_connection
{
	my ($node, $name, $kind, $url, $auth, $options) = @_;
	$node->safe_psql('postgres', "SELECT weir.create_connection('$name', '$kind', '$url', "
		  . literal($json->encode($auth)) . '::jsonb, ' . literal($json->encode($options // {})) . '::jsonb)');
	return;
}

# Run one task, or several alike, to the end; returns the run and its status.
# Options: count, start (do not wait), max_attempts.
sub run_task
{
	my ($node, $connection, $kind, $spec, %options) = @_;
	my $pipeline = 'signin_' . ++$number;
	my @tasks = map { { name => "t$_", kind => $kind, connection => $connection, spec => $spec,
			retry => { max_attempts => $options{max_attempts} // 1 } } } 1 .. $options{count} // 1;

	$node->safe_psql('postgres', "SELECT weir.create_pipeline('$pipeline', "
		  . literal($json->encode({ tasks => \@tasks })) . '::jsonb)');
	my $run = weir_trigger($node, $pipeline);
	return $run if $options{start};
	return ($run, wait_for_run($node, $run));
}

# Every service of Azure that tokens of Entra ID are for: name => {kind, url,
# options} of a connection, {task, spec} of something small to do there, and
# what its token must be for.
sub azure_services
{
	my ($address) = @_;
	return (
		adf => { kind => 'adf', url => "$address/adf", options => { subscription_id => 's1', resource_group => 'rg', factory => 'adf-dev', settle_seconds => 0 },
			task => 'adf_pipeline', spec => { pipeline => 'wait', parameters => { seconds => 0 } }, resource => 'https://management.azure.com' },
		databricks => { kind => 'databricks', url => "$address/dbx", options => {},
			task => 'databricks_job', spec => { job_id => 102, job_parameters => { seconds => '0' } }, resource => '2ff814a6-3304-4ab8-85cb-cd0e6f879c1d' },
		fabric => { kind => 'fabric', url => "$address/fabric/v1", options => { workspace_id => '00000000-0000-4000-8000-000000000001', settle_seconds => 1 },
			task => 'fabric_item', spec => { item => '00000000-0000-4000-9000-000000000001', job_type => 'Pipeline' }, resource => 'https://api.fabric.microsoft.com' },
		keyvault => { kind => 'keyvault', url => "$address/vault", options => {},
			task => 'keyvault', spec => { operation => 'list' }, resource => 'https://vault.azure.net' },
		storage => { kind => 'storage', url => "$address/hns/blob", options => {},
			task => 'storage', spec => { operation => 'list', container => 'lake' }, resource => 'https://storage.azure.com' });
}

# "user: message" of the errors of a run
sub task_error
{
	my ($node, $run) = @_;
	return $node->safe_psql('postgres',
		"SELECT coalesce(string_agg(failure_type || ': ' || message, ' '), '') FROM weir.error WHERE run_id = $run");
}

1;
