# Neon's own SDKs for Python and JavaScript find in the local cloud what they
# expect of Neon: each goes through a session with it, over TLS, and understands
# every answer, also the refusals.  What was said is recorded and compared with
# the description that Neon publishes (WEIR_SPECS names the folder): every
# answer is as described, and so is every request that was accepted.
#
# npm: @neondatabase/api-client@2.7.3
# pypi: PyYAML==6.0.3
# pypi: databricks-sdk==0.156.0
# pypi: jsonschema==4.26.0
# pypi: neon-api==0.3.0

use strict;
use warnings FATAL => 'all';

use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirPackages;
use WeirTest;

my %missing = (python => missing_pypi(), javascript => missing_npm('@neondatabase/api-client'));
plan skip_all => "$missing{python}; $missing{javascript}" if defined $missing{python} && defined $missing{javascript};

my $json = JSON::PP->new->canonical->ascii;
my $dir = PostgreSQL::Test::Utils::tempdir();
my $cloud = "$WeirTest::root/test/cloud";
my %session = (
	python => sub { return (venv_python(), "$cloud/sdk/check_neon.py") },
	javascript => sub { return ('node', node_program('test/cloud/sdk/check_neon.mjs', 'test/cloud/sdk/localcloud.mjs'), "$cloud/cloud.py") });

my @recordings;
foreach my $language ('python', 'javascript')
{
  SKIP:
	{
		skip $missing{$language}, 2 if defined $missing{$language};
		local $ENV{WEIR_RECORD_FILE} = "$dir/$language";
		my $output = '';
		my $limit = IPC::Run::timeout(4 * $PostgreSQL::Test::Utils::timeout_default);
		ok(IPC::Run::run([ $session{$language}->() ], '<', \undef, '>', \$output, '2>&1', $limit), "the SDK for $language is content")
		  or diag($output);
		like($output, qr/^(?!0 )\d+ passed, 0 failed$/m, "with every answer: $language");
		push @recordings, "$dir/$language";
	}
}

# --- the published description judges what was said
my $specs = $ENV{WEIR_SPECS} // '';

sub judged
{
	my (@files) = @_;
	my ($out, $err);
	IPC::Run::run([ venv_python(), "$cloud/described/described.py", $specs, @files ], '<', \undef, '>', \$out, '2>', \$err)
	  or die "described.py: $err";
	return $json->decode($out);
}

# The first recorded call of that operation with that status, changed, is not as described
my (@wrong, @lines);
sub wrong
{
	my ($what, $operation, $status, $expected, $change) = @_;
	my ($line) = map { $json->decode($_) } grep { /^\{"operation": "\Q$operation\E"/ && /"answer": \{"status": $status,/ } @lines;
	my %body = map { $_->[0] => $_->[1]{body} =~ /^\{/ ? $json->decode($_->[1]{body}) : undef } [ request => $line ], [ answer => $line->{answer} ];
	$change->($body{answer}, $body{request}, $line);
	$line->{body} = $json->encode($body{request}) if defined $body{request};
	$line->{answer}{body} = $json->encode($body{answer}) if defined $body{answer} && $line->{answer}{body} =~ /^\{"/;
	push @wrong, [ $what, $expected, $json->encode($line) ];
	return;
}

SKIP:
{
	skip 'no published descriptions: WEIR_SPECS is not set', 1 if $specs eq '';
	skip "no published description of Neon in $specs", 1 unless -e "$specs/neon/public-v2-for-users.gen.yaml";
	skip $missing{python}, 1 if defined $missing{python};

	my $found = judged(@recordings);
	is(join("\n", @{ $found->{findings} }), '', 'every answer is as described, and every request that was accepted');
	my @expected = (
		qw(listProjects createProject getProject updateProject deleteProject getConnectionURI listProjectOperations getProjectOperation),
		qw(createProjectBranch listProjectBranches getProjectBranch updateProjectBranch deleteProjectBranch restoreProjectBranch),
		qw(setDefaultProjectBranch), ($missing{javascript} ? () : qw(countProjectBranches listProjectBranchEndpoints restartProjectEndpoint)),
		qw(createProjectEndpoint listProjectEndpoints getProjectEndpoint updateProjectEndpoint deleteProjectEndpoint),
		qw(startProjectEndpoint suspendProjectEndpoint),
		map({ ("listProjectBranch${_}s", "createProjectBranch$_", "getProjectBranch$_", "deleteProjectBranch$_") } 'Database', 'Role'),
		qw(updateProjectBranchDatabase getProjectBranchRolePassword resetProjectBranchRolePassword),
		qw(getCurrentUserInfo listApiKeys createApiKey revokeApiKey));
	cmp_ok($found->{anybody}{$_} // 0, '>', 0, "asked for: $_") foreach @expected;

	@lines = map { split /\n/, PostgreSQL::Test::Utils::slurp_file($_) } @recordings;
	wrong('a field that is missing', 'neon.branch-get', 200, qr/answer 200 branch: 'protected' is a required property/, sub { delete $_[0]{branch}{protected} });
	wrong('a part that is missing', 'neon.branch-get', 200, qr/'annotation' is a required property/, sub { delete $_[0]{annotation} });
	wrong('a field that is not described', 'neon.branch-get', 200, qr/answer 200 branch\.colour is not known/, sub { $_[0]{branch}{colour} = 'red' });
	wrong('a status of no operation', 'neon.operation-get', 200, qr/operation\.status: 'done' is not one of/, sub { $_[0]{operation}{status} = 'done' });
	wrong('an action of no operation', 'neon.branch-restore', 200, qr/operations\.0\.action: 'restore' is not one of/, sub { $_[0]{operations}[0]{action} = 'restore' });
	wrong('an id that is none', 'neon.branch-create', 201, qr/branch\.id: 'BR' does not match/, sub { $_[0]{branch}{id} = 'BR' });
	wrong('a time that is none', 'neon.project-get', 200, qr/project\.created_at: .* is not a 'date-time'/, sub { $_[0]{project}{created_at} = 'yesterday' });
	wrong('a number that is text', 'neon.endpoint-get', 200, qr/endpoint\.autoscaling_limit_min_cu: '1' is not of type 'number'/, sub { $_[0]{endpoint}{autoscaling_limit_min_cu} = '1' });
	wrong('nothing where there is something', 'neon.branch-list', 200, qr/pagination\.next: None is not of type 'string'/, sub { $_[0]{pagination}{next} = undef });
	wrong('an error without a code', 'neon.project-list', 401, qr/answer 401: 'code' is a required property/, sub { delete $_[0]{code} });
	wrong('an error of another service', 'neon.project-get', 404, qr/'message' is a required property/, sub { %{ $_[0] } = (error => { code => 'NotFound' }) });
	wrong('a status that is not described', 'neon.branch-create', 201, qr/status 200 is not described/, sub { $_[2]{answer}{status} = 200 });
	wrong('an answer that is not JSON', 'neon.project-get', 200, qr/Content-Type is text\/html/, sub { $_[2]{answer}{headers} = { 'Content-Type' => 'text/html' } });
	wrong('a body where there is none', 'neon.branch-delete', 204, qr/answer 204: a body is not described/, sub { $_[2]{answer}{body} = '{}' });
	wrong('a request of too many, accepted', 'neon.project-list', 200, qr/accepted: query limit: 500 is greater than the maximum/, sub { $_[2]{target} =~ s/limit=\d+/limit=500/ or $_[2]{target} .= '?limit=500' });
	wrong('a request that says what nobody knows', 'neon.branch-create', 201, qr/accepted: body branch\.colour is not known/, sub { $_[1]{branch}{colour} = 'red' });
	wrong('a request without what is required', 'neon.branch-restore', 200, qr/accepted: body: 'source_branch_id' is a required property/, sub { delete $_[1]{source_branch_id} });

	# all in one file, each of which is found for another reason
	open(my $file, '>', "$dir/wrong") or die "$dir/wrong: $!";
	print $file "$_->[2]\n" foreach @wrong;
	close($file) or die "$dir/wrong: $!";
	my $findings = judged("$dir/wrong")->{findings};
	like(join("\n", @$findings), $_->[1], "seen: $_->[0]") foreach @wrong;
}

done_testing();
