# LongTasks.pm - for requests.pl: tasks each of which makes hundreds of requests,
# and the services that answer them (mill.py).  A list has many pages, a job is
# looked at many times, a queue is asked without end: meanwhile nothing is
# written into the database, so that what takes time are requests and answers.
#
#   my $long = LongTasks->start(dir =>, seed =>, length =>, items =>);
#   $long->connections        as requests.pl has them: [ name, kind, base URL, sign-in, options ]
#   $long->pipelines          [ name, kind, connection, spec, more ]
#   $long->answered           how many requests were, and { kind => [all, bad] }
#   $long->end                everything has ended when it is looked at next
#   $long->pid

package LongTasks;

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;

use WeirTest;

sub id { return sprintf('00000000-0000-4000-8000-%012d', $_[0]) }

sub openssl
{
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'openssl', @_ ], '<', \'', '>', \$out, '2>', \$err) or die "openssl @_: $err";
	return;
}

# A certificate of "localhost" and the authority that signed it.
sub make_certificate
{
	my ($dir) = @_;

	PostgreSQL::Test::Utils::append_to_file("$dir/san", 'subjectAltName = DNS:localhost');
	openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', 2, '-subj', '/CN=private authority', '-keyout', "$dir/ca.key", '-out', "$dir/ca.pem");
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=localhost', '-keyout', "$dir/server.key", '-out', "$dir/server.csr");
	openssl('x509', '-req', '-in', "$dir/server.csr", '-CA', "$dir/ca.pem", '-CAkey', "$dir/ca.key", '-CAcreateserial', '-days', 2,
		'-extfile', "$dir/san", '-out', "$dir/server.pem");
	return;
}

sub start
{
	my ($class, %options) = @_;
	my $dir = $options{dir};
	my $has_tls = grep { -x "$_/openssl" } split(/:/, $ENV{PATH});
	my @command = ('python3', '-B', "$WeirTest::root/test/chaos/mill.py", '--dir', $dir, '--seeds', "$WeirTest::root/test/fuzz/seeds",
		'--seed', $options{seed}, '--length', $options{length});

	if ($has_tls)
	{
		make_certificate($dir);
		push @command, '--certificate', "$dir/server.pem", '--key', "$dir/server.key";
	}
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', "$dir/mill.log");
		open(STDERR, '>&', \*STDOUT);
		exec(@command) or exit 127;
	}
	my $limit = time + 60;
	until (-s "$dir/mill.address")
	{
		die "the mill did not start, see $dir/mill.log" if waitpid($pid, 1) != 0 || time > $limit;
		select(undef, undef, undef, 0.02);
	}
	my ($plain, $secure) = split /\n/, PostgreSQL::Test::Utils::slurp_file("$dir/mill.address");
	return bless { %options, pid => $pid, plain => $plain, secure => $secure, count => 0, kinds => {} }, $class;
}

sub pid { return $_[0]->{pid} }

sub connections
{
	my ($self) = @_;
	my $url = $self->{plain};
	my %free = (request_limits => undef, poll => { min => 0.2, max => 0.2 }, settle_seconds => 1);
	my %entra = (type => 'entra_client_secret', tenant_id => 'local', client_id => 'weir-client', client_secret => 'entra_secret', authority => $url);

	return (
		[ 'm_plain', 'http', $url ],
		[ 'm_oauth', 'http', $url, { type => 'oauth_client_secret', token_url => "$url/token", client_id => 'c', client_secret => 'token' } ],
		$self->{secure} ? [ 'm_tls', 'http', $self->{secure}, { type => 'bearer', token => 'token' }, { ca_certificate => PostgreSQL::Test::Utils::slurp_file("$self->{dir}/ca.pem") } ] : (),
		[ 'm_dbx', 'databricks', $url, { type => 'pat', token => 'token' }, \%free ],
		[ 'm_sql', 'databricks', $url, { type => 'databricks_oauth', client_id => 'c', client_secret => 'token' }, \%free ],
		[ 'm_adf', 'adf', $url, \%entra, { %free, subscription_id => 's1', resource_group => 'rg', factory => 'f' } ],
		[ 'm_fabric', 'fabric', "$url/v1", \%entra, { %free, workspace_id => id(1) } ],
		[ 'm_lake', 'storage', "$url", { type => 'shared_key', account => 'account', key => 'key' } ],
		[ 'm_sas', 'storage', "$url", { type => 'sas', token => 'sas' } ],
		[ 'm_vault', 'keyvault', $url, { type => 'bearer', token => 'token' }, { request_limits => undef } ],
		[ 'm_queue', 'http', "$url/queues", undef ],
	);
}

sub pipelines
{
	my ($self) = @_;
	my %page = (items => '$.items', max_pages => 10000, max_bytes => 1000000, truncate => JSON::PP::true);
	my %job = (id => '$.id', poll => { path => '/jobs/{id}', every => 0, status => '$.state', succeeded => ['done'], failed => ['failed'] });
	my @list;

	foreach my $connection (map { $_->[0] } grep { $_->[1] eq 'http' && $_->[0] ne 'm_queue' } $self->connections)
	{
		push @list, [ "${connection}_next", 'http', $connection, { path => '/pages/next', pages => { %page, next => { json => '$.next' } } } ],
		  [ "${connection}_job", 'http', $connection, { path => '/jobs', method => 'POST', body => { a => "\x{e4}" }, %job } ];
	}
	push @list,
	  [ 'm_absolute', 'http', 'm_plain', { path => '/pages/absolute', pages => { %page, next => { json => '$.next' } } } ],
	  [ 'm_link', 'http', 'm_oauth', { path => '/pages/link', pages => { %page, next => { header => 'Link' } } } ],
	  [ 'm_cursor', 'http', 'm_plain', { path => '/pages/cursor?count=' . $self->{length}, pages => { %page, cursor => { json => '$.meta.next', parameter => 'at' } } } ],
	  [ 'm_body', 'http', 'm_plain', { path => '/pages/body', method => 'POST', idempotent => JSON::PP::true, body => { at => 0 },
			pages => { %page, cursor => { json => '$.meta.next', parameter => 'at', in => 'body' } } } ],
	  [ 'm_number', 'http', 'm_plain', { path => '/pages/number', pages => { %page, number => { parameter => 'at', first => 0 } } } ],
	  [ 'm_lro', 'http', 'm_oauth', { path => '/lro', method => 'POST', poll => { header => 'Location', every => 0 } } ],
	  [ 'm_databricks_job', 'databricks_job', 'm_dbx', { job_id => 102 } ],
	  [ 'm_notebook', 'databricks_notebook', 'm_dbx', { notebook_path => '/a/echo' } ],
	  [ 'm_statement', 'databricks_sql', 'm_sql', { statement => 'SELECT 1 AS a', warehouse_id => 'wh1', max_rows => 1000 } ],
	  [ 'm_adf_pipeline', 'adf_pipeline', 'm_adf', { pipeline => 'wait' } ],
	  [ 'm_fabric_item', 'fabric_item', 'm_fabric', { item => id(10), job_type => 'Pipeline' } ],
	  [ 'm_list', 'storage', 'm_lake', { operation => 'list', container => 'lake', glob => '*/7*/**', max_files => 10000 } ],
	  [ 'm_prefix', 'storage', 'm_sas', { operation => 'list', container => 'lake', prefix => "$self->{length}", max_files => 10000 } ],
	  [ 'm_secrets', 'keyvault', 'm_vault', { operation => 'list' } ],
	  [ 'm_event', 'webhook', 'm_queue', { queue => 'events', event => { type => 'nothing' }, every => 0.1 }, timeout => '20 seconds' ];
	return map { my ($name, $kind, $connection, $spec, %more) = @$_; [ $name, $kind, $connection, $spec, items => $self->{items}, %more ] } @list;
}

sub answered
{
	my ($self) = @_;
	my $answer = HTTP::Tiny->new->get("$self->{plain}/_count");

	# one that is too busy to tell is asked the next time
	if ($answer->{success})
	{
		$self->{kinds} = JSON::PP->new->decode($answer->{content});
		$self->{count} = 0;
		$self->{count} += $_->[0] foreach values %{ $self->{kinds} };
	}
	return ($self->{count}, $self->{kinds});
}

sub end { return HTTP::Tiny->new->post("$_[0]->{plain}/_end")->{success} }

1;
