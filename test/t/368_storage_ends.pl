# A task that goes through files in a storage account and is interrupted between
# two of them: when it cannot sign in after a copy that took its time is over it
# is tried again, and whenever it is cancelled, or fails, it says how far it
# came.  No file is lost, copied twice or left half made.

use strict;
use warnings FATAL => 'all';

use HTTP::Tiny;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('ends', conf => "weir.max_sql_workers = 1\n");
my $cloud = weir_cloud(undef, speed => 20);
my $address = $cloud->address;
my $http = HTTP::Tiny->new(timeout => $PostgreSQL::Test::Utils::timeout_default);
my @files = (1, 2, 3);
my $n = 0;

sub value { return $node->safe_psql('postgres', $_[0]) }
sub literal { return "'" . ($_[0] =~ s/'/''/gr) . "'" }
value("SELECT weir.create_secret('app', 'weir-secret')");
my $auth = $json->encode({ type => 'entra_client_secret', tenant_id => 'local', client_id => 'weir-client', client_secret => 'app', authority => $address });

# Straight to the account; the token of a moment, as tests revoke all there are
sub lake
{
	my ($method, $path, %with) = @_;
	my $token = $json->decode($http->post_form("$address/direct/oauth2/v2.0/token", { grant_type => 'client_credentials', client_id => 'weir-client',
		client_secret => 'weir-secret', scope => 'https://storage.azure.com/.default' })->{content})->{access_token};
	my $answer = $http->request($method, "$address/hns/blob/ends$path", { headers => { Authorization => "Bearer $token", 'x-ms-version' => '2023-11-03',
		'x-ms-blob-type' => 'BlockBlob' }, %with });
	die "$method $path: $answer->{status} $answer->{content}" unless $answer->{success};
	return $answer->{content};
}

sub content { return "row of $_[0]\n" x 20 }

# A pipeline of one task with files of its own; its run.
sub start
{
	my ($operation, %options) = @_;
	my $name = 'p' . ++$n;
	my %spec = ($operation eq 'file_away' ? () : (operation => $operation), container => 'ends', %{ $options{spec} // {} });
	if ($operation =~ /^(?:copy|move|delete|file_away)$/)
	{
		lake('PUT', "/$name/in/$_.csv", content => content("$name $_")) foreach @files;
		$spec{files} = [ map { "$name/in/$_.csv" } @files ];
		$spec{from} = "$name/in/" if $operation ne 'delete';
		$spec{ $operation eq 'file_away' ? 'archive' : 'to' } = "$name/out/" if $operation ne 'delete';
	}
	my %task = (name => 'it', kind => $operation eq 'file_away' ? $operation : 'storage', connection => $name, spec => \%spec, %{ $options{task} // {} });
	value("SELECT weir.create_connection('$name', 'storage', '$address/hns/blob', '$auth', " . literal($json->encode($options{options} // {})) . ')');
	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => [ \%task ] })) . ')');
	return ($name, weir_trigger($node, $name));
}

sub of_task { my ($run, $what) = @_; return value("SELECT $what FROM weir.task_run WHERE run_id = $run") }
sub attempts { my ($run) = @_; return value("SELECT string_agg(concat_ws(' ', status, error_code), ', ' ORDER BY attempt_no) FROM weir.attempt WHERE run_id = $run") }
# what the log says of an attempt's failure beside its message
sub detail { my ($run) = @_; return value("SELECT coalesce(detail, '') FROM weir.error WHERE run_id = $run AND task_run_id IS NOT NULL ORDER BY attempt_no LIMIT 1") }
sub external { my ($run) = @_; return value("SELECT concat_ws(' ', a.external_run_id, t.external_run_id) FROM weir.attempt a JOIN weir.task_run t USING (task_run_id, attempt_no) WHERE a.run_id = $run") }

# What there is of a pipeline's files, such as "in/2.csv out/1.csv"; with a ! what is not whole
sub there
{
	my ($name) = @_;
	my @names = lake('GET', "?restype=container&comp=list&prefix=$name/") =~ m{<Name>([^<]*)</Name><Properties>(?:(?!</Properties>).)*<ResourceType>file<}g;
	return join(' ', map { my ($short, $no) = m{^$name/((?:in|out)/(\d)\.csv)$}; $short . (lake('GET', "/$_") eq content("$name $no") ? '' : '!') } sort @names);
}

sub copied { my ($name) = @_; return scalar grep { ($_->{path} // '') =~ m{/$name/} } @{ $cloud->ledger(operation => 'hns.copy', started => 'true') } }

# An exchange that is held, before anything is done; release() lets it go.
sub hold
{
	my ($operation, %more) = @_;
	return $cloud->add_fault(operation => $operation, fault => 'hold', %more)->{faults}[-1]{id};
}
sub release { my ($number) = @_; $cloud->call('DELETE', "faults/$number"); return }
sub wait_for_copy
{
	my ($run) = @_;
	wait_until($node, 'a copy is under way', "SELECT external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $run");
	return;
}

# until the copy of this file is whole
sub wait_until_copied
{
	my ($name, $no) = @_;
	my $limit = time + $PostgreSQL::Test::Utils::timeout_default;
	while (time < $limit)
	{
		return if there($name) =~ m{out/$no.csv(?!!)};
		select(undef, undef, undef, 0.02);
	}
	die "out/$no.csv is never whole";
}

my $older = 100_000;		# seconds that a copy takes which does not end by itself
my @arrives = (fault => 'delay', delay_ms => 100_000_000);	# it is done, and never answered
my @lost = (do_work => JSON::PP::false);

# --- sign-in fails when the first copy is over -------------------------------------

my %policy = (retry => { max_attempts => 20, initial_delay => '100 milliseconds', max_delay => '1 second', jitter => 0, on => { failure => 'any' } });
foreach my $how ('refused', 'refused after a crash')
{
	$cloud->reset;
	$cloud->config(copy_seconds => 1);
	my $held = hold('hns.delete');
	my ($name, $run) = start('move', task => \%policy);
	is($cloud->wait_struck($held), 1, "$how: the first copy is over");
	is(external($run), '', "$how: a copy that is over has no id any more");
	if ($how ne 'refused')
	{
		my $log = -s $node->logfile;
		kill('KILL', backend_pid($node, '%conductor%')) == 1 or die "kill: $!";
		$cloud->config(clients => { 'weir-client' => 'another' });
		wait_for_restart($node, $log);
	}
	else
	{
		$cloud->config(clients => { 'weir-client' => 'another' }, revoke_tokens => JSON::PP::true);
	}
	release($held);
	wait_until($node, 'the attempt has failed', "SELECT count(*) > 0 FROM weir.attempt WHERE run_id = $run AND status = 'failed'");
	is(value("SELECT error_code FROM weir.attempt WHERE run_id = $run AND attempt_no = 1"), 'sign_in_failed', "$how: the first attempt cannot sign in");
	is(value("SELECT external_run_id FROM weir.attempt WHERE run_id = $run AND attempt_no = 1"), '', "$how: and names no copy");
	unlike(detail($run), qr/It ended/, "$how: before the first is through nothing is said");
	$cloud->config(clients => { 'weir-client' => 'weir-secret' });
	is(wait_for_run($node, $run), 'succeeded', "$how: another one does the rest") or diag(attempts($run), of_task($run, 'error_message'));
	is(there($name), 'out/1.csv out/2.csv out/3.csv', "$how: all are where they should be");
	is(copied($name), 3, "$how: each was copied once");
	is(of_task($run, "output->>'count'"), 3, "$how: and counted once");
}

# the same while the copy is under way: the next attempt finds it
{
	$cloud->reset;
	$cloud->config(copy_seconds => $older);
	my ($name, $run) = start('move', task => \%policy);
	wait_for_copy($run);
	like(external($run), qr/^(\S+) \1$/, 'while it is made its id is the attempt\'s');
	$cloud->config(clients => { 'weir-client' => 'another' }, revoke_tokens => JSON::PP::true);
	wait_until($node, 'the attempt has failed', "SELECT count(*) > 0 FROM weir.attempt WHERE run_id = $run AND status = 'failed'");
	$cloud->config(clients => { 'weir-client' => 'weir-secret' }, copy_seconds => 1);
	is(wait_for_run($node, $run), 'succeeded', 'a copy that nobody followed any more is found') or diag(attempts($run), of_task($run, 'error_message'));
	is(there($name), 'out/1.csv out/2.csv out/3.csv', 'and the others are made');
	is(copied($name), 3, 'each of them once');
}

# the token endpoint is out of order: not for as long as a token fetched anew is asked for
{
	$cloud->reset;
	$cloud->config(copy_seconds => 1);
	my $held = hold('hns.delete');
	my ($name, $run) = start('copy', spec => {});
	wait_for_copy($run);
	$cloud->config(revoke_tokens => JSON::PP::true);
	$cloud->add_fault(operation => 'entra.token', status => 503, times => 2);
	is(wait_for_run($node, $run), 'succeeded', 'a token endpoint that is out of order for a while') or diag(of_task($run, 'error_message'));
	is(there($name), 'in/1.csv in/2.csv in/3.csv out/1.csv out/2.csv out/3.csv', 'all are copied');
	is(copied($name), 3, 'each once');
	is(external($run), '', 'and no id is left');
	release($held);
}

# --- a cancel says how far it came --------------------------------------------------

# Each: the operation, what is held (and the how manieth of it), whether it was carried out, the text, what is there, and the output's count.
my $all = 'in/1.csv in/2.csv in/3.csv';
my @moments = (
	[ 'before sign-in', 'move', [ 'entra.token' ], qr/^given up before a file was moved$/, $all, 0 ],
	[ 'a look at the first', 'move', [ 'hns.head' ], qr/^given up before a file was moved$/, $all, 0 ],
	[ 'a copy that is not begun', 'move', [ 'hns.copy', @lost ], qr/^given up before a file was moved$/, $all, 0, 'answered' ],
	[ 'a copy that is done at once', 'move', [ 'hns.copy' ], qr{^given up; "\w+/in/1.csv" was copied to "\w+/out/1.csv" and not deleted$}, "$all out/1.csv", 0, 'answered' ],
	[ 'the second copy', 'move', [ 'hns.copy', after => 1 ], qr{^given up after 1 of 3 files; "\w+/in/2.csv" was copied to "\w+/out/2.csv" and not deleted$}, 'in/2.csv in/3.csv out/1.csv out/2.csv', 1, 'answered' ],
	[ 'a check of a copy', 'move', [ 'hns.head', after => 2 ], qr{^given up; "\w+/in/1.csv" was copied to "\w+/out/1.csv" and not deleted$}, "$all out/1.csv", 0 ],
	[ 'a deletion that arrived', 'move', [ 'hns.delete', @arrives ], qr{^given up; "\w+/in/1.csv" was copied to "\w+/out/1.csv", and whether it was deleted is not known$}, 'in/2.csv in/3.csv out/1.csv', 0 ],
	[ 'a deletion that did not', 'move', [ 'hns.delete', after => 1, @lost ], qr{^given up after 1 of 3 files; "\w+/in/2.csv" was copied to "\w+/out/2.csv", and whether it was deleted is not known$},
		'in/2.csv in/3.csv out/1.csv out/2.csv', 1 ],
	[ 'between two files', 'move', [ 'hns.head', after => 3 ], qr/^given up after 1 of 3 files$/, 'in/2.csv in/3.csv out/1.csv', 1 ],
	[ 'a token for the second', 'move', [ 'hns.head', after => 3, then => 'token' ], qr/^given up after 1 of 3 files$/, 'in/2.csv in/3.csv out/1.csv', 1 ],
	[ 'a token for the second copy', 'move', [ 'hns.head', after => 4, then => 'token' ], qr/^given up after 1 of 3 files$/, 'in/2.csv in/3.csv out/1.csv', 1 ],
	[ 'the last copy', 'copy', [ 'hns.head', after => 8 ], qr{^given up after 2 of 3 files; "\w+/in/3.csv" was copied to "\w+/out/3.csv", which was not checked any more$}, "$all out/1.csv out/2.csv out/3.csv", 2 ],
	[ 'the second copy of three', 'copy', [ 'hns.copy', after => 1 ], qr{^given up after 1 of 3 files; "\w+/in/2.csv" was copied to "\w+/out/2.csv", which was not checked any more$}, "$all out/1.csv out/2.csv", 1, 'answered' ],
	[ 'the second to be put away', 'file_away', [ 'hns.copy', after => 1 ], qr{^given up after 1 of 3 files; "\w+/in/2.csv" was copied to "\w+/out/2.csv" and not deleted$}, 'in/2.csv in/3.csv out/1.csv out/2.csv', 1, 'answered' ],
	[ 'the first deletion', 'delete', [ 'hns.delete', @arrives ], qr{^given up; whether "\w+/in/1.csv" was deleted is not known$}, 'in/2.csv in/3.csv', 0 ],
	[ 'the second deletion', 'delete', [ 'hns.delete', after => 1, @arrives ], qr{^given up after 1 of 3 files; whether "\w+/in/2.csv" was deleted is not known$}, 'in/3.csv', 1 ],
	[ 'a rename', 'rename', [ 'hns.rename', after => 2, @arrives ], qr{^given up after 1 of 3 files; whether "\w+/in/2.csv" was moved is not known$}, 'in/3.csv out/1.csv out/2.csv', 1 ],
	[ 'a text that is written', 'put', [ 'hns.put', @arrives ], qr/^given up; whether "text" was written is not known$/, undef, undef ],
	[ 'before a text is written', 'put', [ 'entra.token' ], qr/^given up before "text" was written$/, undef, undef ],
	[ 'a list', 'list', [ 'hns.list' ], qr/^given up$/, undef, undef ]);
my %wanted = map { $_ => 1 } split(/,/, $ENV{ONLY} // '');
foreach my $moment (@moments)
{
	my ($what, $operation, $held, $text, $there, $count, $answered) = @$moment;
	my ($point, %more) = @$held;
	my $then = delete $more{then};
	next if %wanted && !$wanted{$what};

	$cloud->reset;
	$cloud->config(copy_seconds => 0);
	my $number;
	my ($name, $run);
	my %options = $operation eq 'rename' ? (options => { dfs_url => "$address/hns/dfs" }) : $operation eq 'put' ? (spec => { name => 'text', text => 'one' }) : ();
	$number = hold($point, %more, $point eq 'entra.token' ? (path => '/local/oauth2/v2.0/token') : $point eq 'hns.put' ? (path => '/hns/blob/ends/text') : ());
	($name, $run) = start($operation eq 'rename' ? 'move' : $operation, %options);
	is($cloud->wait_struck($number), 1, "$what: held");
	if ($then)
	{
		$cloud->config(revoke_tokens => JSON::PP::true);
		my $token = hold('entra.token', path => '/local/oauth2/v2.0/token');
		release($number);
		is($cloud->wait_struck($token), 1, "$what: a token is asked for");
		$number = $token;
	}
	value("SELECT weir.cancel($run)");
	if ($answered)
	{
		wait_until($node, 'it is being cancelled', "SELECT status = 'cancelling' FROM weir.run WHERE run_id = $run");
		release($number);
	}
	my $status = wait_for_run($node, $run);
	release($number) unless $answered;
	is($status, defined $text ? 'cancelled' : 'succeeded', "$what: the run");
	like(of_task($run, 'error_message'), $text, "$what: what is said of it") if defined $text;
	is(there($name), $there, "$what: is what there is") if defined $there;
	is(of_task($run, "output->>'count'"), $count, "$what: and what is counted") if defined $count;
	is(attempts($run), defined $text ? 'cancelled cancelled' : 'succeeded', "$what: one attempt");
}

# --- a cancel while a copy is under way ----------------------------------------------

# Another copy is under way, of the second file; what is done to it, and what is said then.
my $done = qr{^given up after 1 of 3 files; "\w+/in/2.csv" was copied to "\w+/out/2.csv" and not deleted$};
my @copies = (
	[ 'it is aborted', '', qr/^given up after 1 of 3 files$/, 'in/2.csv in/3.csv out/1.csv' ],
	[ 'it is whole before that', 'hns.abort', $done, 'in/2.csv in/3.csv out/1.csv out/2.csv' ],
	[ 'what is left cannot be removed', 'hns.delete', qr{^given up after 1 of 3 files; the copy of "\w+/in/2.csv" was stopped, but the empty file that it left at "\w+/out/2.csv" could not be removed$},
		'in/2.csv in/3.csv out/1.csv out/2.csv!' ],
	[ 'nobody can sign in', 'token', qr{"\w+/in/2.csv" may still be being copied}, undef ],
	[ 'nobody answers', 'hns.head', qr{^the cancel was not confirmed within weir.cancel_grace; given up after 1 of 3 files; "\w+/in/2.csv" may still be being copied to "\w+/out/2.csv"$}, undef ],
	[ 'the conductor is killed', 'kill', $done, 'in/2.csv in/3.csv out/1.csv out/2.csv' ],
	[ 'the account is busy', 'busy', qr/^given up after 1 of 3 files$/, 'in/2.csv in/3.csv out/1.csv' ],
	[ 'the copy fails', 'fails', qr{^given up after 1 of 3 files$|^copy to "\w+/out/2.csv" ended as failed}, 'in/3.csv out/1.csv' ]);
foreach my $moment (@copies)
{
	my ($what, $how, $text, $there) = @$moment;
	next if %wanted && !$wanted{$what};

	$cloud->reset;
	$cloud->config(copy_seconds => 0);
	# the second copy begins when the account's copies take their time, or is refused
	my $busy = $how eq 'busy';
	my $second = $busy ? $cloud->add_fault(operation => 'hns.copy', after => 1, status => 503, headers => { 'x-ms-error-code' => 'ServerBusy' }, retry_after => 3600)->{faults}[-1]{id}
		: hold('hns.copy', after => 1);
	my ($name, $run) = start('move');
	is($cloud->wait_struck($second), 1, "$what: the second copy");
	$cloud->config(copy_seconds => $older);
	my $fault;
	release($second) unless $busy;
	wait_for_copy($run) unless $busy;
	if ($how eq 'hns.abort')
	{
		$fault = hold('hns.abort');
	}
	elsif ($how eq 'hns.delete')
	{
		$cloud->add_fault(operation => 'hns.delete', status => 403, headers => { 'x-ms-error-code' => 'LeaseIdMissing' });
	}
	elsif ($how eq 'hns.head')
	{
		value('ALTER SYSTEM SET weir.cancel_grace = 500');
		$node->reload;
		$fault = hold('hns.head', times => undef);
		is($cloud->wait_struck($fault), 1, "$what: nobody answers");
	}
	elsif ($how eq 'token')
	{
		value('ALTER SYSTEM SET weir.cancel_grace = 500');
		$node->reload;
		$fault = hold('entra.token', times => undef, path => '/local/oauth2/v2.0/token');
		$cloud->config(revoke_tokens => JSON::PP::true);
		is($cloud->wait_struck($fault), 1, "$what: nobody can");
	}
	elsif ($how eq 'kill')
	{
		$fault = hold('hns.abort');
	}
	elsif ($how eq 'fails')
	{
		lake('DELETE', "/$name/in/2.csv");
	}
	value("SELECT weir.cancel($run)");
	if ($how =~ /^(?:hns.abort|kill)$/)
	{
		is($cloud->wait_struck($fault), 1, "$what: it is being aborted");
		# before another conductor can abort it
		$cloud->config(copy_seconds => 0);
		wait_until_copied($name, 2);
		if ($how eq 'kill')
		{
			my $log = -s $node->logfile;
			kill('KILL', backend_pid($node, '%conductor%')) == 1 or die "kill: $!";
			wait_for_restart($node, $log);
		}
		release($fault);
	}
	is(wait_for_run($node, $run), 'cancelled', "$what: the run");
	like(of_task($run, 'error_message'), $text, "$what: what is said of it");
	is(there($name), $there, "$what: is what there is") if defined $there;
	is(of_task($run, "output->>'count'"), 1, "$what: and what is counted");
	is(external($run) eq '' ? 'none' : 'one', defined $there ? 'none' : 'one', "$what: and whether there is an id");
	next unless $fault;
	$cloud->clear_faults;
	value('ALTER SYSTEM RESET weir.cancel_grace');
	$node->reload;
}

# it fails at the second file, at the last, at the first or when all were gone through
my @refusals = (
	[ 'the second copy', 'move', [ 'hns.copy', after => 1 ], qr/^It ended after 1 of 3 files\.$/m, 'in/2.csv in/3.csv out/1.csv' ],
	[ 'the last rename', 'rename', [ 'hns.rename', after => 3 ], qr/^It ended after 2 of 3 files\.$/m, 'in/3.csv out/1.csv out/2.csv' ],
	[ 'the last deletion', 'delete', [ 'hns.delete', after => 2 ], qr/^It ended after 2 of 3 files\.$/m, 'in/3.csv' ],
	[ 'the last to be put away', 'file_away', [ 'hns.copy', after => 2 ], qr/^It ended after 2 of 3 files\.$/m, 'in/3.csv out/1.csv out/2.csv' ],
	[ 'the last copy, with one that is missing', 'gone', [ 'hns.copy', after => 1 ], qr/^It ended after 2 of 3 files, 1 of them moved\.$/m, 'in/3.csv out/2.csv' ],
	[ 'the first copy', 'move', [ 'hns.copy' ], undef, $all ],
	[ 'a missing file at the end', 'gone', undef, undef, 'out/2.csv out/3.csv' ]);
foreach my $refusal (@refusals)
{
	my ($what, $operation, $refused, $text, $there) = @$refusal;
	next if %wanted && !$wanted{$what};

	$cloud->reset;
	$cloud->config(copy_seconds => 0);
	$cloud->add_fault(operation => $refused->[0], fault => 'status', status => 403, headers => { 'x-ms-error-code' => 'AuthorizationPermissionMismatch' },
		times => undef, @$refused[ 1 .. $#$refused ]) if $refused;
	my $token = $operation eq 'gone' ? hold('entra.token', path => '/local/oauth2/v2.0/token') : undef;
	my ($name, $run) = start($operation =~ /rename|gone/ ? 'move' : $operation, $operation eq 'rename' ? (options => { dfs_url => "$address/hns/dfs" }) : ());
	if ($token)
	{
		lake('DELETE', "/$name/in/1.csv");
		release($token);
	}
	is(wait_for_run($node, $run), 'failed', "fails, $what: the run");
	if (defined $text)
	{
		like(detail($run), $text, "fails, $what: how far it came");
		unlike(of_task($run, 'error_message'), qr/ended after/, "fails, $what: the message is what it was");
	}
	else
	{
		unlike(detail($run), qr/It ended/, "fails, $what: nothing is said of how far it came");
	}
	is(there($name), $there, "fails, $what: is what there is");
}

# its time is up between two files: it is tried again, and says how far it came
{
	$cloud->reset;
	$cloud->config(copy_seconds => 0);
	my $fault = hold('hns.head', after => 3);
	my ($name, $run) = start('move', task => { timeout => '3 seconds', retry => { max_attempts => 2, initial_delay => '100 milliseconds' } });
	is($cloud->wait_struck($fault), 1, 'its time is up: one file is moved');
	wait_until($node, 'its time is up', "SELECT status = 'timed_out' FROM weir.attempt WHERE run_id = $run AND attempt_no = 1");
	release($fault);
	is(wait_for_run($node, $run), 'succeeded', 'its time is up: another attempt moves the others');
	like(value("SELECT error_message FROM weir.attempt WHERE run_id = $run AND attempt_no = 1"), qr/given up after 1 of 3 files$/, 'its time is up: how far it came');
	is(there($name), 'out/1.csv out/2.csv out/3.csv', 'its time is up: all are moved');
	is(copied($name), 3, 'its time is up: each once');
}

unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC|illegal|signal 11|signal 6|already had an outcome/, 'nothing died of itself');
$node->stop;
done_testing();
