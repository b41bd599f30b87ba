# Files that follow how their run ended (kind file_away), on an account with a
# hierarchical namespace of the local cloud: archive, error folder, and nothing
# moved while a D restart needs it.  And kind keyvault.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use StorageSas;
use WeirTest;

my $node = weir_node('filing');
my $cloud = weir_cloud(undef, speed => 10);
my $address = $cloud->address;

sub value { return $node->safe_psql('postgres', $_[0]); }

sub literal { my ($text) = @_; $text =~ s/'/''/g; return "'$text'"; }

value("SELECT weir.create_secret('app', 'weir-secret')");
my $auth = encode_json({ type => 'entra_client_secret', tenant_id => 'local', client_id => 'weir-client', client_secret => 'app', authority => $address });
value("SELECT weir.create_connection('hns', 'storage', '$address/hns/blob', '$auth', '{\"dfs_url\": \"$address/hns/dfs\"}')");
value("SELECT weir.create_connection('vault', 'keyvault', '$address/vault', '$auth')");
value(q{CREATE TABLE public.switch (name text PRIMARY KEY, works boolean NOT NULL); INSERT INTO public.switch VALUES ('land', true), ('transform', true);
	CREATE FUNCTION public.step(which text) RETURNS void LANGUAGE plpgsql AS
	$$BEGIN IF NOT (SELECT works FROM public.switch WHERE name = which) THEN RAISE EXCEPTION '% is broken', which; END IF; END$$});

sub works { my ($which, $yes) = @_; value("UPDATE public.switch SET works = $yes WHERE name = '$which'"); return; }

sub create
{
	my ($name, @tasks) = @_;
	value("SELECT weir.create_pipeline('$name', " . literal(encode_json({ tasks => \@tasks })) . ')');
	return;
}

sub put
{
	my ($name, $text) = @_;
	create("put$name" =~ s/\W/_/gr . int(rand(1e9)), { name => 'it', kind => 'storage', connection => 'hns',
		spec => { operation => 'put', container => 'lake', name => $name, text => $text, overwrite => JSON::PP::true } });
	my $pipeline = value("SELECT name FROM weir.pipeline ORDER BY pipeline_id DESC LIMIT 1");
	is(wait_for_run($node, weir_trigger($node, $pipeline)), 'succeeded', "put $name");
	return;
}

my $lists = 0;
sub names
{
	my ($prefix) = @_;
	my $pipeline = 'list' . ++$lists;
	create($pipeline, { name => 'it', kind => 'storage', connection => 'hns', spec => { operation => 'list', container => 'lake', prefix => $prefix } });
	my $run = weir_trigger($node, $pipeline);
	wait_for_run($node, $run);
	return value("SELECT string_agg(f->>'name', ' ' ORDER BY f->>'name') FROM weir.task_run t, jsonb_array_elements(t.output->'files') f WHERE t.run_id = $run");
}

sub filed { my ($run) = @_; return decode_json(value("SELECT coalesce(output, '{}') FROM weir.task_run WHERE run_id = $run AND task_name = 'file'")); }
sub next_load { my ($pipeline) = @_; return value("SELECT next_load_status FROM weir.pipeline_state s JOIN weir.pipeline p USING (pipeline_id) WHERE p.name = '$pipeline'"); }

# incoming: listed, landed and transformed by SQL that fails when told to
sub flow
{
	my ($name) = @_;
	create($name,
		{ name => 'incoming', kind => 'storage', connection => 'hns', phase => 'land', spec => { operation => 'list', container => 'lake', prefix => "$name/in/" } },
		{ name => 'land', kind => 'sql', phase => 'land', depends_on => ['incoming'], spec => { sql => "SELECT public.step('land')" } },
		{ name => 'transform', kind => 'sql', depends_on => ['land'], spec => { sql => "SELECT public.step('transform')" } },
		{ name => 'file', kind => 'file_away', connection => 'hns', depends_on => ['transform'],
			spec => { container => 'lake', files => '{{tasks.incoming.output.files}}', from => "$name/in/",
				archive => "$name/archive/{{row_audit_id}}/", error => "$name/error/{{row_audit_id}}/" } });
	return;
}

# --- what a definition may say ---------------------------------------------------------

sub refused
{
	my ($tasks, $pattern, $what) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "SELECT weir.create_pipeline('refused', " . literal(encode_json({ tasks => $tasks })) . ')');
	isnt($status, 0, "$what: refused");
	like($err, $pattern, "$what: says why");
	return;
}
my %file = (name => 'file', kind => 'file_away', connection => 'hns', spec => { container => 'lake', files => ['a'], archive => 'done/' });
my $other = { name => 'other', kind => 'noop' };
refused([ $other, \%file ], qr/does not come after task "other"/, 'a task beside it');
refused([ { %file, phase => 'land' } ], qr/lands nothing/, 'phase land');
refused([ { %file, run_if => 'all_success' } ], qr/runs always/, 'run_if');
refused([ { %file, spec => { container => 'lake', files => ['a'] } } ], qr/give "archive", "error" or both/, 'no folder');
refused([ { %file, spec => { container => 'lake', files => ['a'], archive => 'done' } } ], qr/must end in a slash/, 'a folder without a slash');
refused([ { %file, spec => { container => 'lake', files => ['../a'], archive => 'done/' } } ], qr/must not have a segment/, 'a name that climbs');
refused([ { %file, spec => { container => 'lake', files => ['a'], from => 'in/', archive => 'done/' } } ], qr/is not below "from"/, 'a name elsewhere');
refused([ { %file, spec => { container => 'lake', files => ['a'], archive => 'done/', to => 'x/' } } ], qr/unknown member "to"/, 'the decision is not the user\'s');
refused([ { name => 'x', kind => 'storage', connection => 'hns', spec => { operation => 'burn', container => 'lake' } } ], qr/unknown operation/, 'operation');
refused([ { name => 'x', kind => 'keyvault', connection => 'vault', spec => { operation => 'get', name => 'a/b' } } ], qr/not the name of a secret/, 'name of a secret');

# --- P: archived; the list pages ----------------------------------------------------------

$cloud->config(page_size => 2);
flow('good');
put("good/in/$_.csv", "text of $_") foreach 1 .. 5;
my $run = weir_trigger($node, 'good');
is(wait_for_run($node, $run), 'succeeded', 'a good run');
is(filed($run)->{count}, 5, 'all files of all pages');
is(filed($run)->{next_load_status}, 'P', 'because of P');
is(names('good/'), join(' ', map { "good/archive/$run/$_.csv" } 1 .. 5), 'are in the archive');
is($cloud->started('hns.rename'), 5, 'each renamed once');
is($cloud->requests('hns.delete'), 0, 'and none copied or deleted');
is(next_load('good'), 'P', 'the next start processes');
is(wait_for_run($node, weir_trigger($node, 'good')), 'succeeded', 'a run without files');
$cloud->config(page_size => 100);

# --- R: to the error folder -----------------------------------------------------------------

flow('bad');
put('bad/in/1.csv', 'x');
works('land', 'false');
$run = weir_trigger($node, 'bad');
is(wait_for_run($node, $run), 'failed', 'landing fails');
is(filed($run)->{next_load_status}, 'R', 'R');
is(names('bad/'), "bad/error/$run/1.csv", 'in the error folder');
is(next_load('bad'), 'R', 'as the log says');
works('land', 'true');

# --- D: nothing is moved, however often, until a resumed run succeeds --------------------------

flow('resumed');
put("resumed/in/$_.csv", 'x') foreach 1, 2;
works('transform', 'false');
my $origin = $run = weir_trigger($node, 'resumed');
is(wait_for_run($node, $run), 'failed', 'transform fails');
is(next_load('resumed'), 'D', 'D');
is(filed($run)->{kept}, 'the next start goes on with what was landed', 'kept');
is(names('resumed/'), 'resumed/in/1.csv resumed/in/2.csv', 'nothing was moved');
put('resumed/in/3.csv', 'landed later');
$run = weir_trigger($node, 'resumed');
is(wait_for_run($node, $run), 'failed', 'resumed, and fails again');
is(next_load('resumed'), 'D', 'still D');
is(names('resumed/'), 'resumed/in/1.csv resumed/in/2.csv resumed/in/3.csv', 'still nothing');
is(value("SELECT status FROM weir.task_run WHERE run_id = $run AND task_name = 'incoming'"), 'reused', 'landing is reused');
works('transform', 'true');
$run = weir_trigger($node, 'resumed');
is(wait_for_run($node, $run), 'succeeded', 'resumed, and succeeds');
is(names('resumed/'), "resumed/archive/$origin/1.csv resumed/archive/$origin/2.csv resumed/in/3.csv",
	'what was landed is archived under its origin, what came later waits for its own run');

# --- a repair decides anew -----------------------------------------------------------------------

flow('repaired');
put('repaired/in/1.csv', 'x');
works('transform', 'false');
$run = weir_trigger($node, 'repaired');
is(wait_for_run($node, $run), 'failed', 'fails');
works('transform', 'true');
value("SELECT weir.repair($run)");
is(wait_for_run($node, $run, 'succeeded'), 'succeeded', 'repaired');
is(names('repaired/'), "repaired/archive/$run/1.csv", 'archived after the repair');

# --- filing that fails is a failure of the run, but not of its data ---------------------------------

flow('stuck');
put('stuck/in/1.csv', 'x');
$cloud->add_fault(operation => 'hns.rename', status => 403, body => '{"error":{"code":"AuthorizationPermissionMismatch","message":"not permitted"}}');
$run = weir_trigger($node, 'stuck');
is(wait_for_run($node, $run), 'failed', 'the run says so');
is(next_load('stuck'), 'P', 'its data needs nothing again');
is(value("SELECT code FROM weir.error WHERE run_id = $run"), 'AuthorizationPermissionMismatch', 'why');
value("SELECT weir.repair($run)");
is(wait_for_run($node, $run, 'succeeded'), 'succeeded', 'a repair does the rest');
is(names('stuck/'), "stuck/archive/$run/1.csv", 'archived');

# --- a file that changed after it was listed stays, the others go -----------------------------------

flow('changed');
put("changed/in/$_.csv", 'x') foreach 1, 2;
$cloud->add_fault(operation => 'hns.head', fault => 'hold', do_work => JSON::PP::true);
my $seen = $cloud->requests('hns.head');
$run = weir_trigger($node, 'changed');
$cloud->wait(operation => 'hns.head', count => $seen + 1);
put('changed/in/2.csv', 'new content');
$cloud->clear_faults;
is(wait_for_run($node, $run), 'succeeded', 'no failure');
is(names('changed/'), "changed/archive/$run/1.csv changed/in/2.csv", 'the new content is not archived unseen');
is_deeply(filed($run)->{changed}, ['changed/in/2.csv'], 'and named');

# --- the same with Shared Key and with a SAS, which the rename's source needs, too ------------------------

my ($account, $key) = ('weirlake', 'a2V5IG9mIGFuIGFjY291bnQgd2l0aCBmb2xkZXJz');
$cloud->config(storage_account => $account, storage_key => $key);
my %signed = (
	shared_key => [ $key, { type => 'shared_key', account => $account, key => 'way_shared_key' } ],
	account_sas => [ account_sas($account, $key), { type => 'sas', token => 'way_account_sas' } ],
	container_sas => [ container_sas($account, $key, 'lake'), { type => 'sas', token => 'way_container_sas' } ]);
foreach my $way (sort keys %signed)
{
	my ($secret, $how) = @{ $signed{$way} };
	value("SELECT weir.create_secret('way_$way', " . literal($secret) . ')');
	value("SELECT weir.create_connection('$way', 'storage', '$address/hns/blob', " . literal(encode_json($how)) . ", '{\"dfs_url\": \"$address/hns/dfs\"}')");
	put("$way/in/$_.csv", 'x') foreach 1, 'b c & +%';
	my $ledger = $way eq 'shared_key' ? $way : 'sas';
	my %before = map { $_ => $cloud->started("hns.$_", auth => $ledger) } 'rename', 'mkdir';
	create($way,
		{ name => 'incoming', kind => 'storage', connection => $way, phase => 'land', spec => { operation => 'list', container => 'lake', prefix => "$way/in/" } },
		{ name => 'file', kind => 'file_away', connection => $way, depends_on => ['incoming'],
			spec => { container => 'lake', files => '{{tasks.incoming.output.files}}', from => "$way/in/", archive => "$way/done/{{row_audit_id}}/" } });
	$run = weir_trigger($node, $way);
	is(wait_for_run($node, $run), 'succeeded', "$way: the run")
	  or diag(value("SELECT string_agg(code || ': ' || message, '; ') FROM weir.error WHERE run_id = $run"));
	is(names("$way/"), "$way/done/$run/1.csv $way/done/$run/b c & +%.csv", "$way: both moved, nothing left");
	is($cloud->started('hns.rename', auth => $ledger) - $before{rename}, 2, "$way: renamed, and signed this way");
	cmp_ok($cloud->started('hns.mkdir', auth => $ledger), '>', $before{mkdir}, "$way: after their folder was made");
}
value("SELECT weir.create_secret('narrow_sas', " . literal(container_sas($account, $key, 'lake', 'rl')) . ')');
value("SELECT weir.alter_connection('container_sas', auth => '{\"type\": \"sas\", \"token\": \"narrow_sas\"}')");
put('container_sas/in/2.csv', 'x');
$run = weir_trigger($node, 'container_sas');
is(wait_for_run($node, $run), 'failed', 'a SAS that may only read');
is(value("SELECT code FROM weir.error WHERE run_id = $run"), 'AuthorizationPermissionMismatch', 'is refused, which the log says');
is(names('container_sas/in/'), 'container_sas/in/2.csv', 'and the file stays');

# --- kill -9 and faults around every request of a rename -----------------------------------------------

my @moments;
foreach my $operation ('head', 'rename', 'mkdir')
{
	push @moments, [ $operation, 'hold' ], [ $operation, 'hold', JSON::PP::false ];
	push @moments, [ $operation, $_ ] foreach 'reset_after', 'reset_before', 'status';
}
my $round = 0;
foreach my $moment (@moments)
{
	my ($operation, $fault, $do_work) = @$moment;
	my $what = "$operation, $fault" . (defined $do_work ? ', not done' : '');
	my $name = 'kill' . ++$round;

	flow($name);
	put("$name/in/$_.csv", "text $_") foreach 1, 2;
	my $before = $cloud->requests("hns.$operation");
	my $renamed = $cloud->started('hns.rename');
	$cloud->add_fault(operation => "hns.$operation", fault => $fault,
		($fault eq 'status' ? (status => 503, headers => { 'x-ms-error-code' => 'ServerBusy' }) : ()),
		(defined $do_work ? (do_work => $do_work) : ()));
	$run = weir_trigger($node, $name);
	if ($fault eq 'hold')
	{
		$cloud->wait(operation => "hns.$operation", count => $before + 1);
		my $pid = backend_pid($node, '%conductor%');
		my $log = -s $node->logfile;
		kill('KILL', $pid) == 1 or die "kill: $!";
		$cloud->clear_faults;
		wait_for_restart($node, $log);
	}
	is(wait_for_run($node, $run), 'succeeded', "$what: the run");
	is(names("$name/"), "$name/archive/$run/1.csv $name/archive/$run/2.csv", "$what: both moved, nothing left");
	is($cloud->started('hns.rename') - $renamed, 2, "$what: each renamed once");
	is(filed($run)->{count}, 2, "$what: and counted");
}

# --- key vault ----------------------------------------------------------------------------------------

my $vaults = 0;
sub vault
{
	my ($spec) = @_;
	my $pipeline = 'vault' . ++$vaults;
	create($pipeline, { name => 'it', kind => 'keyvault', connection => 'vault', spec => $spec });
	return weir_trigger($node, $pipeline);
}
sub vault_outcome
{
	my ($run) = @_;
	my $status = wait_for_run($node, $run);
	return { status => $status, %{ decode_json(value("SELECT jsonb_build_object('output', t.output, 'code', e.code, 'message', e.message) FROM weir.task_run t "
		. "LEFT JOIN weir.error e ON e.task_run_id = t.task_run_id WHERE t.run_id = $run ORDER BY e.error_id DESC LIMIT 1")) } };
}
my $secret = 'correct "horse" \\ battery staple';
value("SELECT weir.create_secret('source', " . literal($secret) . ')');
my $set = { operation => 'set', name => 'db-password', from_secret => 'source', expires_in_days => 60, tags => { owner => 'load' } };
my $got = vault_outcome(vault($set));
is($got->{status}, 'succeeded', 'a new version') or diag(explain($got));
is($got->{output}{days_left} // '', 59, 'that will expire');
$got = vault_outcome(vault({ operation => 'check', secrets => [ 'db-password', 'not-there' ], expires_within_days => 30 }));
is($got->{code}, 'secrets_not_fit', 'one is missing');
is($got->{message}, 'not-there is missing', 'says which');
$got = vault_outcome(vault({ operation => 'check', secrets => ['db-password'], expires_within_days => 90 }));
is($got->{message}, 'db-password is expiring', 'one expires soon');
$got = vault_outcome(vault({ operation => 'check', secrets => ['db-password'], expires_within_days => 90, report_only => JSON::PP::true }));
is($got->{output}{secrets}[0]{problem}, 'expiring', 'reported only');
vault_outcome(vault({ %$set, name => "more-$_" })) foreach 1 .. 3;
$cloud->config(page_size => 2);
$got = vault_outcome(vault({ operation => 'list' }));
is(join(' ', map { $_->{name} } @{ $got->{output}{secrets} }), 'db-password more-1 more-2 more-3', 'listed, page by page');
$cloud->config(page_size => 100);
$got = vault_outcome(vault({ operation => 'get', name => 'db-password' }));
is($got->{output}{enabled}, JSON::PP::true, 'facts');

# exactly one version, whatever happens on the way
foreach my $fault ([ 'hold' ], [ 'hold', JSON::PP::false ], ['reset_after'], ['reset_before'], ['half_body'])
{
	my $what = "set, $fault->[0]" . (@$fault > 1 ? ', not done' : '');
	my $before = $cloud->started('keyvault.set');
	my $asked = $cloud->requests('keyvault.set');
	$cloud->add_fault(operation => 'keyvault.set', fault => $fault->[0], (@$fault > 1 ? (do_work => $fault->[1]) : ()));
	$run = vault($set);
	if ($fault->[0] eq 'hold')
	{
		$cloud->wait(operation => 'keyvault.set', count => $asked + 1);
		my $pid = backend_pid($node, '%conductor%');
		my $log = -s $node->logfile;
		kill('KILL', $pid) == 1 or die "kill: $!";
		$cloud->clear_faults;
		wait_for_restart($node, $log);
	}
	is(vault_outcome($run)->{status}, 'succeeded', "$what: the run");
	is($cloud->started('keyvault.set') - $before, 1, "$what: one version");
}
is($cloud->requests('keyvault.get'), 0, 'no value was ever asked for');

# an identity that may set secrets but not list them: the newest version settles it
foreach my $fault ('reset_after', 'reset_before')
{
	my $before = $cloud->started('keyvault.set');
	$cloud->add_fault(operation => 'keyvault.set', fault => $fault);
	$cloud->add_fault(operation => 'keyvault.versions', status => 403, body => '{"error":{"code":"Forbidden","message":"does not have secrets list permission"}}');
	$got = vault_outcome(vault({ %$set, name => "unlisted-" . ($fault =~ tr{_}{-}r) }));
	is($got->{status}, 'succeeded', "set, $fault, versions may not be listed: the run") or diag(explain($got));
	is($cloud->started('keyvault.set') - $before, 1, "set, $fault, versions may not be listed: one version");
}
$cloud->add_fault(operation => 'keyvault.set', fault => 'reset_after');
$cloud->add_fault(operation => 'keyvault.versions', status => 403, body => '{"error":{"code":"Forbidden","message":"does not have secrets list permission"}}');
$cloud->add_fault(operation => 'keyvault.get', status => 403, body => '{"error":{"code":"Forbidden","message":"does not have secrets get permission"}}');
$got = vault_outcome(vault({ %$set, name => 'unseen' }));
is($got->{code}, 'outcome_unknown', 'where nothing may be looked at nobody knows');
like($got->{message}, qr/may neither list nor get the secret: whether a version of secret "unseen" has the tag weir_token = weir-/, 'and the message says what to look for');

# what a reference became is checked like what was written: nothing is sent
value(q{CREATE TABLE public.given (name text); INSERT INTO public.given VALUES ('a/../{{b}}')});
create('rendered',
	{ name => 'names', kind => 'sql', spec => { sql => 'SELECT name FROM public.given' } },
	{ name => 'it', kind => 'keyvault', connection => 'vault', depends_on => ['names'], retry => { max_attempts => 3 },
		spec => { operation => 'get', name => '{{tasks.names.output.rows[0].name}}' } });
my $asked = $cloud->requests('keyvault.*');
$run = weir_trigger($node, 'rendered');
is(wait_for_run($node, $run), 'failed', 'a name that a reference gave');
is(value("SELECT string_agg(a.status || ' ' || a.error_code || ' ' || a.failure_type, ',') FROM weir.attempt a JOIN weir.task_run t USING (task_run_id) WHERE t.run_id = $run AND t.task_name = 'it'"),
	'failed invalid_spec user', 'is a user error, and not tried again');
like(value("SELECT message || ': ' || detail FROM weir.error WHERE run_id = $run"), qr/not the name of a secret in a key vault: JSON path: \$\.spec\.name\nIt has/, 'which says where');
is($cloud->requests('keyvault.*'), $asked, 'nothing was sent');

# --- nothing but file_away ------------------------------------------------------------------------------

create('alone', { name => 'file', kind => 'file_away', connection => 'hns',
	spec => { container => 'lake', files => ['alone/in/1.csv'], from => 'alone/in/', archive => 'alone/archive/{{row_audit_id}}/' } });
put('alone/in/1.csv', 'x');
$run = weir_trigger($node, 'alone');
is(wait_for_run($node, $run), 'succeeded', 'a pipeline of file_away alone');
is(filed($run)->{next_load_status}, 'P', 'nothing failed');
is(names('alone/'), "alone/archive/$run/1.csv", 'so its files are archived');
is(next_load('alone'), 'P', 'and the next start processes');
$run = weir_trigger($node, 'alone');
is(wait_for_run($node, $run), 'failed', 'files that are gone are a failure of the run');
is(value("SELECT code FROM weir.error WHERE run_id = $run"), 'file_missing', 'which says so');
is(next_load('alone'), 'P', 'but not of its data');

# somebody else's secret
value(q{CREATE ROLE dev LOGIN; GRANT weir_admin TO dev});
my $stolen = encode_json({ tasks => [ { name => 'it', kind => 'keyvault', connection => 'vault', spec => { %$set, name => 'stolen' } } ] });
my $steal = "SET ROLE dev; SELECT weir.create_pipeline('steal', " . literal($stolen) . ')';
like(($node->psql('postgres', $steal))[2], qr/no secret "source" that belongs to the owner/, 'a secret of others is refused when a pipeline is defined');
my $keeper = value('SELECT quote_ident(current_user)');
value("GRANT $keeper TO dev");
value($steal);
value("REVOKE $keeper FROM dev");
$run = weir_trigger($node, 'steal');
$got = vault_outcome($run);
is($got->{code}, 'secret_not_found', 'and goes nowhere for others than its owner, either');
like($got->{message}, qr/no secret "source" that belongs to the owner/, 'says why');

my $everything = PostgreSQL::Test::Utils::slurp_file($node->logfile)
  . value("SELECT string_agg(x::text, ' ') FROM (SELECT to_jsonb(a) FROM weir.attempt a UNION ALL SELECT to_jsonb(e) FROM weir.error e "
	. "UNION ALL SELECT to_jsonb(t) FROM weir.task_run t) AS y (x)");
unlike($everything, qr/battery staple/, 'the value is in no table and in no log');
my ($signature) = $signed{container_sas}[0] =~ /sig=([^&]+)/;
unlike($everything, qr/\Q$_\E/, 'nor is a key or a signature') foreach $key, $signature;

done_testing();
