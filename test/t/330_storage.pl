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

use StorageSas;
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
my $sas = account_sas($account, $key);
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


# --- the SAS of one container: its files are there, and the account's list of containers is not for it

value("SELECT weir.create_secret('container_sas', '" . container_sas($account, $key, 'lake') . "')");
value("SELECT weir.create_connection('narrow', 'storage', '$url{lake}', '{\"type\": \"sas\", \"token\": \"container_sas\"}')");
sub tested
{
	my ($connection) = @_;
	return value("SELECT concat_ws(' ', coalesce(is_ok::text, 'null'), sign_in, permission, detail, hint) FROM weir.test_connection('$connection')");
}
is(run_it({ operation => 'list', container => 'lake', prefix => 'in/', glob => '*.txt' }, connection => 'narrow')->{output}{count}, 1, 'the SAS of a container: a task works');
like(tested('narrow'), qr/^null unknown unknown HTTP status 403: \S.*one of a container.*option "container"/, 'a test does not call it wrong');
value("SELECT weir.alter_connection('narrow', options => '{\"container\": \"lake\"}')");
is(tested('narrow'), 'true ok ok', 'and asks for the container that the connection names');
value("SELECT weir.alter_connection('narrow', options => '{\"container\": \"elsewhere\"}')");
like(tested('narrow'), qr/^(false|null) .*HTTP status 403/, 'another one is not for it');

# --- put: repeatable, and nothing is overwritten unless told -----------------------

my $put = { operation => 'put', container => 'lake', name => 'out/_done.json', text => { rows => 3 } };
is(run_it($put)->{status}, 'succeeded', 'put');
is($azurite->get('lake/out/_done.json'), '{"rows":3}', 'the text is there');
is(run_it($put)->{status}, 'succeeded', 'the same text again is no conflict');
my $got = run_it({ %$put, text => 'other' });
is($got->{code}, 'destination_exists', 'another text is');
is($azurite->get('lake/out/_done.json'), '{"rows":3}', 'and nothing was changed');
is(run_it({ %$put, text => 'other', overwrite => JSON::PP::true }, connection => 'lake_sas')->{status}, 'succeeded', 'overwrite');
is($azurite->get('lake/out/_done.json'), 'other', 'overwritten');

# --- copy, with Shared Key and with SAS ---------------------------------------------

foreach my $connection ('lake', 'lake_sas')
{
	$got = run_it({ operation => 'copy', container => 'lake', to_container => 'elsewhere', from => "in/b c.csv", to => "$connection/\x{fc} b.csv" },
		connection => $connection);
	is($got->{status}, 'succeeded', "$connection: copy") or diag(explain($got));
	is($got->{output}{bytes}, length 'text of in/b c.csv', "$connection: its size");
}
is($azurite->get("elsewhere/lake/\xc3\xbc b.csv"), 'text of in/b c.csv', 'the copy');
is($azurite->get('lake/in/b c.csv'), 'text of in/b c.csv', 'the source stays');
$azurite->put('elsewhere/taken.csv', 'of somebody else');
$got = run_it({ operation => 'copy', container => 'lake', to_container => 'elsewhere', from => 'in/a.csv', to => 'taken.csv' });
is($got->{code}, 'destination_exists', 'a target that is taken');
is($azurite->get('elsewhere/taken.csv'), 'of somebody else', 'is left alone');

# --- move and delete: what changed meanwhile stays ----------------------------------

my $old = $azurite->put('lake/move/a.csv', 'first');
$azurite->put('lake/move/a.csv', 'second');
$azurite->put('lake/move/b.csv', 'b');
$got = run_it({ operation => 'move', container => 'lake', from => 'move/', to => 'moved/',
	files => [ { name => 'move/a.csv', etag => $old }, 'move/b.csv', 'move/gone.csv' ] });
is($got->{code}, 'file_missing', 'a file that is nowhere fails the task');
is($azurite->names('lake', 'move'), 'move/a.csv moved/b.csv', 'the changed file stays, the other was moved');
is($got->{output}{count}, 1, 'and how many were moved');
$got = run_it({ operation => 'move', container => 'lake', from => 'move/a.csv', to => 'moved/a.csv', etag => $old });
is($got->{code}, 'file_changed', 'a file that is not the one meant');
$got = run_it({ operation => 'move', container => 'lake', from => 'move/a.csv', to => 'moved/a.csv' }, connection => 'far_sas');
is($got->{status}, 'succeeded', 'moved') or diag(explain($got));
is($azurite->get('lake/moved/a.csv'), 'second', 'what it was');
is($azurite->names('lake', 'move'), 'moved/a.csv moved/b.csv', 'nothing is left');
$got = run_it({ operation => 'delete', container => 'lake', files => [ 'moved/a.csv', 'moved/b.csv', 'moved/never.csv' ] });
is($got->{output}{count}, 3, 'deleted, and what is not there is deleted');
$azurite->put('lake/moved/c.csv', 'c');
$got = run_it({ operation => 'delete', container => 'lake', name => 'moved/c.csv', etag => '0x1' });
is($got->{code}, 'file_changed', 'delete asks for the ETag');
is($azurite->get('lake/moved/c.csv'), 'c', 'and leaves another file alone');

# --- wait: ends when the files are there ----------------------------------------------

my $run = start({ operation => 'wait', container => 'lake', prefix => 'drop/', glob => '*.csv', min_count => 2, stable => JSON::PP::true,
	every_seconds => 1 }, connection => 'far');
$cloud->wait(operation => 'storage.list', count => 1);
$azurite->put('lake/drop/1.csv', '1');
my $seen = $cloud->requests('storage.list');
$cloud->wait(operation => 'storage.list', count => $seen + 1);
is(value("SELECT status FROM weir.run WHERE run_id = $run"), 'running', 'one of two is not enough');
$azurite->put('lake/drop/2.csv', '22');
$got = outcome($run);
is($got->{status}, 'succeeded', 'both are there');
is($got->{output}{bytes}, 3, 'their size');
is(value("SELECT count(*) FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE t.run_id = $run"), 1, 'all in one attempt');
$got = run_it({ operation => 'wait', container => 'lake', prefix => 'drop/', min_count => 3, every_seconds => 1, within_seconds => 1 });
is($got->{code}, 'files_missing', 'a deadline');
like($got->{message}, qr/2 of 3 files/, 'says how many there are');
$got = run_it({ operation => 'wait', container => 'lake', prefix => 'drop/', min_age_seconds => 3600, every_seconds => 1, within_seconds => 1 });
like($got->{message}, qr/0 of 1 files/, 'files that are too young do not count');
$got = run_it({ operation => 'wait', container => 'lake', prefix => 'drop/', min_count => 3 }, timeout => '500 milliseconds');
is($got->{status}, 'failed', 'the timeout of the task ends it as well');

# a wait is cancelled at once, whatever it is doing
$run = start({ operation => 'wait', container => 'lake', prefix => 'never/', every_seconds => 3600 });
wait_for_status($node, $run, 'it', 'running');
value("SELECT weir.cancel($run)");
is(wait_for_run($node, $run), 'cancelled', 'a cancelled wait');

# --- kill -9 and lost answers at every step of a move ----------------------------------

my %content = map { ("k$_.csv" => "content of $_" x 100) } 1 .. 3;
my @moments;
foreach my $operation ('head', 'copy', 'delete')
{
	push @moments, [ $operation, $_, 'hold' ], [ $operation, $_, 'hold', JSON::PP::false ] foreach 0, 1;
	push @moments, [ $operation, 0, $_ ] foreach 'reset_after', 'reset_before', 'half_body', 'status';
}
my $round = 0;
foreach my $moment (@moments)
{
	my ($operation, $after, $fault, $do_work) = @$moment;
	my $name = "$operation, $fault" . ($after ? ', second' : '') . (defined $do_work ? ', not done' : '');
	my $folder = 'kill' . ++$round;

	$azurite->put("lake/$folder/$_", $content{$_}) foreach keys %content;
	$cloud->reset;
	$cloud->add_fault(operation => "storage.$operation", fault => $fault, after => $after,
		($fault eq 'status' ? (status => 503, headers => { 'x-ms-error-code' => 'ServerBusy' }) : ()),
		(defined $do_work ? (do_work => $do_work) : ()));
	$run = start({ operation => 'move', container => 'lake', from => "$folder/", to => "$folder-done/", files => [ map { "$folder/$_" } sort keys %content ] },
		connection => $round % 2 ? 'far' : 'far_sas');
	if ($fault eq 'hold')
	{
		$cloud->wait(operation => "storage.$operation", count => $after + 1);
		my $pid = backend_pid($node, '%conductor%');
		my $log = -s $node->logfile;
		kill('KILL', $pid) == 1 or die "kill: $!";
		$cloud->clear_faults;
		wait_for_restart($node, $log);
	}
	$got = outcome($run);
	is($got->{status}, 'succeeded', "$name: the run") or diag(explain($got, [ map { join " ", map { $_ // "" } @$_{qw(operation path status fault)} } @{ $cloud->ledger } ]));
	is($got->{output}{count}, 3, "$name: all three");
	is($azurite->names('lake', "$folder"), join(' ', map { "$folder-done/$_" } sort keys %content), "$name: moved, nothing left, nothing twice");
	is(join('', map { $azurite->get("lake/$folder-done/$_") } sort keys %content), join('', map { $content{$_} } sort keys %content), "$name: what they were");
	cmp_ok($cloud->started('storage.delete'), '==', 3, "$name: each source was deleted once");
	cmp_ok($cloud->started('storage.copy'), '==', 3, "$name: each file was copied once");
}

# --- the key is kept in a key vault, where a task has put it -------------------------------

value("SELECT weir.create_secret('app', 'weir-secret')");
value("SELECT weir.create_connection('vault', 'keyvault', '" . $cloud->address . "/vault', "
	. literal(encode_json({ type => 'entra_client_secret', tenant_id => 'local', client_id => 'weir-client', client_secret => 'app', authority => $cloud->address })) . ')');
value("SELECT weir.create_pipeline('give', " . literal(encode_json({ tasks => [ { name => 'key', kind => 'keyvault', connection => 'vault',
	spec => { operation => 'set', name => 'storage-key', from_secret => 'account_key' } } ] })) . ')');
is(wait_for_run($node, weir_trigger($node, 'give')), 'succeeded', 'the key goes into a vault');
value("SELECT weir.create_connection('vaulted', 'storage', '$url{lake}', '{\"type\": \"shared_key\", \"key\": \"keyvault:vault/storage-key\"}')");
value("SELECT weir.create_secret('kept_key', reference => 'keyvault:vault/storage-key')");
value("SELECT weir.create_connection('kept', 'storage', '$url{lake}', '{\"type\": \"shared_key\", \"key\": \"kept_key\"}')");
foreach my $connection ('vaulted', 'kept')
{
	$got = run_it({ operation => 'put', container => 'lake', name => "by/$connection.txt", text => 'x' }, connection => $connection);
	is($got->{status}, 'succeeded', "$connection: signed with a key of the vault") or diag(explain($got));
	is($azurite->get("lake/by/$connection.txt"), 'x', "$connection: by a server that checks signatures");
	is(value("SELECT is_ok FROM weir.test_connection('$connection')"), 't', "$connection: and test_connection() knows the way");
}
is($cloud->requests('keyvault.get'), 3, 'the vault is asked once, and by each test');
value("SELECT weir.create_connection('keyless', 'storage', '$url{lake}', '{\"type\": \"shared_key\", \"key\": \"keyvault:vault/no-key\"}')");
$got = run_it({ operation => 'list', container => 'lake' }, connection => 'keyless');
is($got->{code}, 'sign_in_failed', 'a key that is not in the vault');
like($got->{message}, qr/secret "no-key" of key vault "vault": the key vault has no such secret/, 'says so');

# --- errors say what is wrong, and no secret is anywhere --------------------------------

value("SELECT weir.create_secret('wrong_key', 'd3Jvbmc=')");
value("SELECT weir.create_secret('no_key', 'this is not base64')");
value("SELECT weir.create_connection('wrong', 'storage', '$url{lake}', '{\"type\": \"shared_key\", \"key\": \"wrong_key\"}')");
value("SELECT weir.create_connection('no', 'storage', '$url{lake}', '{\"type\": \"shared_key\", \"account\": \"devstoreaccount1\", \"key\": \"no_key\"}')");
value("SELECT weir.create_connection('no_sas', 'storage', '$url{lake}', '{\"type\": \"sas\", \"token\": \"no_key\"}')");
my $list = { operation => 'list', container => 'lake' };
is(run_it($list, connection => 'wrong')->{code}, 'AuthorizationFailure', 'a wrong key');
$got = run_it($list, connection => 'no');
is($got->{code}, 'sign_in_failed', 'a key that is none');
like($got->{message}, qr/not base64/, 'says so');
like(run_it($list, connection => 'no_sas')->{message}, qr/not a shared access signature/, 'a SAS that is none');
is(run_it({ %$list, container => 'nowhere' })->{code}, 'ContainerNotFound', 'a container that is not there');
$run = start($list);
is(wait_for_run($node, $run), 'succeeded', 'and with what is right it works');
# a server that says back all it was asked
$cloud->add_fault(operation => 'storage.list', status => 400, times => undef, body => "no: $sas");
$got = run_it($list, connection => 'far_sas');
is($got->{status}, 'failed', 'refused');
my ($signature) = $sas =~ /sig=(.*)/;
my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
my $dump = value("SELECT string_agg(x::text, ' ') FROM (SELECT to_jsonb(a) FROM weir.attempt a UNION ALL SELECT to_jsonb(e) FROM weir.error e "
	. "UNION ALL SELECT to_jsonb(t) FROM weir.task_run t) AS y (x)");
foreach my $secret ($signature, $signature =~ s/%([0-9A-F]{2})/chr(hex $1)/ger)
{
	is(index($got->{message}, $secret), -1, 'the signature is not in the error') or diag("$got->{message} $secret");
	is(index($log, $secret), -1, 'nor in the log of the server');
	is(index($dump, $secret), -1, 'nor in any table');
}

done_testing();
