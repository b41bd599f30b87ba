# When nobody can sign in any more, at the engine or at the proxy before it, what
# counts is what the task may have going on in the engine.  Its work has ended,
# and only the details are to be asked for: it ends as its work did, and one that
# failed is tried again.  Nothing was begun yet, and the conductor has crashed: it
# is tried again.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirFarEnd;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('details', conf => "weir.max_sql_workers = 1\n");
my $far = WeirFarEnd->new;
my $cloud = weir_cloud(undef, speed => 20, tls => "$far->{dir}/server");
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
value("SELECT weir.create_secret('app', 'weir-secret')");
value("SELECT weir.create_secret('proxy', 'weir:right')");
my $auth = { type => 'entra_client_secret', tenant_id => 'local', client_id => 'weir-client', client_secret => 'app', authority => $address };

my %retry = (retry => { max_attempts => 20, initial_delay => '100 milliseconds', max_delay => '1 second', jitter => 0, on => { failure => 'any' } });
my $item = '00000000-0000-4000-9000-%012d';
my %kinds = (
	adf => { kind => 'adf_pipeline', connection => [ 'adf', '/adf', { subscription_id => 's1', resource_group => 'rg', factory => 'adf-dev' } ], detail => 'adf.queryActivityRuns',
		start => 'adf.createRun', well => { pipeline => 'wait', parameters => { seconds => 1 } }, badly => { pipeline => 'fail' } },
	databricks => { kind => 'databricks_notebook', connection => [ 'databricks', '/dbx', {} ], detail => 'databricks.get-output', start => 'databricks.submit',
		well => { notebook_path => '/Shared/echo' }, badly => { notebook_path => '/Shared/fail' } },
	fabric => { kind => 'fabric_item', connection => [ 'fabric', '/fabric/v1', { workspace_id => '00000000-0000-4000-8000-000000000001' } ], detail => 'fabric.activities',
		start => 'fabric.run', well => { item => sprintf($item, 1), job_type => 'Pipeline' } });

# How it comes that nobody can: what is done while the details are asked for, and how that is undone
my %losses = (
	sign_in => {
		code => 'sign_in_failed', address => $address, options => {}, hold => {},
		happen => sub { $cloud->config(clients => { 'weir-client' => 'another' }, revoke_tokens => JSON::PP::true) },
		pass => sub { $cloud->config(clients => { 'weir-client' => 'weir-secret' }) } },
	proxy => {
		code => 'proxy_sign_in_failed', address => $cloud->tls_address, options => { proxy => $far->url('proxy'), proxy_secret => 'proxy', ca_certificate => $far->ca },
		hold => { do_work => JSON::PP::false },
		happen => sub { $far->proxy('user=weir:another') },
		pass => sub { $far->proxy('user=weir:right') } });

foreach my $case (map { my $name = $_; map { [ $name, $_ ] } sort keys %losses } sort keys %kinds)
{
	my ($name, $how) = @$case;
	my ($kind, $loss) = ($kinds{$name}, $losses{$how});
	my ($of, $path, $options) = @{ $kind->{connection} };

	foreach my $end (grep { $kind->{$_} } 'well', 'badly')
	{
		my $it = "${name}_${end}_$how";

		$cloud->reset;
		$loss->{pass}->();
		value("SELECT weir.create_connection('$it', '$of', '$loss->{address}$path', " . literal($json->encode({ %$auth, authority => $loss->{address} })) . ', ' . literal($json->encode({ %$options, %{ $loss->{options} } })) . ')');
		value("SELECT weir.create_pipeline('$it', " . literal($json->encode({ tasks => [ { name => 'it', kind => $kind->{kind}, connection => $it, spec => $kind->{$end}, %retry } ] })) . ')');
		my $fault = $cloud->add_fault(operation => $kind->{detail}, fault => 'hold', %{ $loss->{hold} })->{faults}[-1]{id};
		my $run = weir_trigger($node, $it);
		is($cloud->wait_struck($fault), 1, "$name, ended $end: its details are asked for");
		$loss->{happen}->();
		$cloud->call('DELETE', "faults/$fault");
		wait_until($node, 'the first attempt has ended', "SELECT count(*) = 1 FROM weir.attempt WHERE run_id = $run AND attempt_no = 1 AND status NOT IN ('intended', 'started')");
		my $first = value("SELECT concat_ws(' ', status, error_code) FROM weir.attempt WHERE run_id = $run AND attempt_no = 1");
		if ($end eq 'well')
		{
			is($first, 'succeeded', "$name, $how: work that was done counts as done");
			is(wait_for_run($node, $run), 'succeeded', "$name: and so does the run");
			is($cloud->started($kind->{start}), 1, "$name: it is not done again");
		}
		else
		{
			like($first, qr/^failed (?!$loss->{code})/, "$name, $how: work that failed failed as it did");
			wait_until($node, 'there is another attempt', "SELECT count(*) > 0 FROM weir.attempt WHERE run_id = $run AND attempt_no = 2");
			is($cloud->started($kind->{start}), 1, "$name: which could not begin yet");
			value("SELECT weir.cancel($run)");
			wait_for_run($node, $run);
		}
		$loss->{pass}->();
	}
}

my %first = (
	fabric => { kind => 'fabric_item', connection => [ 'fabric', '/fabric/v1', { workspace_id => '00000000-0000-4000-8000-000000000001' } ], first => 'fabric.list',
		start => 'fabric.run', spec => { item => sprintf($item, 2), job_type => 'RunNotebook' } },
	vault => { kind => 'keyvault', connection => [ 'keyvault', '/vault', {} ], first => 'keyvault.list', spec => { operation => 'list' } });
foreach my $name (sort keys %first)
{
	my $kind = $first{$name};
	my ($of, $path, $options) = @{ $kind->{connection} };

	$cloud->reset;
	value("SELECT weir.create_connection('${name}_first', '$of', '$address$path', " . literal($json->encode($auth)) . ', ' . literal($json->encode($options)) . ')');
	value("SELECT weir.create_pipeline('${name}_first', " . literal($json->encode({ tasks => [ { name => 'it', kind => $kind->{kind}, connection => "${name}_first", spec => $kind->{spec}, %retry } ] })) . ')');
	my $fault = $cloud->add_fault(operation => $kind->{first}, fault => 'hold', do_work => JSON::PP::false)->{faults}[-1]{id};
	my $run = weir_trigger($node, "${name}_first");
	is($cloud->wait_struck($fault), 1, "$name: it looks, and has begun nothing");
	my $log = -s $node->logfile;
	kill('KILL', backend_pid($node, '%conductor%')) == 1 or die "kill: $!";
	$cloud->config(clients => { 'weir-client' => 'another' });
	$cloud->clear_faults;
	wait_for_restart($node, $log);
	wait_until($node, 'the first attempt has ended', "SELECT status = 'failed' FROM weir.attempt WHERE run_id = $run AND attempt_no = 1");
	is(value("SELECT error_code FROM weir.attempt WHERE run_id = $run AND attempt_no = 1"), 'sign_in_failed', "$name: after a crash nobody can sign in");
	$cloud->config(clients => { 'weir-client' => 'weir-secret' });
	is(wait_for_run($node, $run), 'succeeded', "$name: another attempt can");
	is($cloud->started($kind->{start}), 1, "$name: and begins it once") if $kind->{start};
}

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6|already had an outcome/, 'nothing died of itself');
$node->stop;
done_testing();
