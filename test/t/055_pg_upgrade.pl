# pg_upgrade keeps all of weir: definitions, secrets, restart state and the
# run log.  What was under way goes on under the new server, and engines begin
# nothing twice.  From and to the same PostgreSQL, or from the one that
# OLD_PG_CONFIG names (see ../README.md).

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my @init = (extra => ['--data-checksums']);		# a default since 18
my $old = weir_node('old', @init, install_path => $ENV{WEIR_OLD_INSTALL});
my $cloud = WeirCloud->new(root => $WeirTest::root, dir => PostgreSQL::Test::Utils::tempdir(), speed => 2);
weir_story($old, $cloud);
$old->safe_psql('postgres', q{
	CREATE ROLE owner LOGIN IN ROLE weir_admin;
	CREATE TABLE public.landed (row_audit_id bigint);
	GRANT ALL ON public.landed TO owner;
	SET ROLE owner;
	SELECT weir.create_pool('lake', 3, 'of the lake');
	SELECT weir.create_pipeline('load', '{"tasks": [
		{"name": "land", "kind": "sql", "phase": "land", "spec": {"sql": "INSERT INTO public.landed VALUES ({{row_audit_id}})"}},
		{"name": "transform", "kind": "sql", "phase": "transform", "depends_on": ["land"],
		 "spec": {"sql": "INSERT INTO public.transformed SELECT * FROM public.landed"}}]}');
	RESET ROLE;
	SELECT weir.create_pipeline('copy', '{"tasks": [
		{"name": "copy", "kind": "adf_pipeline", "connection": "adf_dev",
		 "spec": {"pipeline": "copy_flights", "parameters": {"row_audit_id": "{{row_audit_id}}"}}},
		{"name": "after", "kind": "sql", "depends_on": ["copy"], "spec": {"sql": "INSERT INTO public.landed VALUES ({{row_audit_id}})"}}]}');
	SELECT weir.create_pipeline('asks', '{"tasks": [{"name": "w", "kind": "wait", "spec": {"approval": "Go on?"}}]}');
	SELECT weir.create_pipeline('outside', '{"tasks": [{"name": "a", "kind": "noop", "spec": {}}]}');
	SELECT * FROM weir.set_config_variable('crm', 'flights', 'watermark', '2026-07-01T00:00:00Z', type => 'timestamptz')});

# One that failed after landing, one that waits, one outside, one in flight.
my $failed = weir_trigger($old, 'load');
is(wait_for_run($old, $failed), 'failed', 'landed, not transformed');
my $asking = weir_trigger($old, 'asks');
is(wait_for_status($old, $asking, 'w', 'running'), 'running', 'one waits for an approval');
my $outside = $old->safe_psql('postgres', q{SELECT "ExecutionID" FROM weir.log_execution_start('outside')});
my $flying = weir_trigger($old, 'copy');
ok(wait_until($old, 'the copy has begun',
		"SELECT status = 'running' AND external_run_id IS NOT NULL FROM weir.task_run WHERE run_id = $flying AND task_name = 'copy'"),
	'one is in flight');
$old->stop;

# Everything of the extension: rows, privileges, what pg_dump is to keep.
sub everything
{
	my ($node) = @_;
	my $queries = $node->safe_psql('postgres', q{
		SELECT format(CASE relkind WHEN 'S' THEN 'SELECT %L AS "=", last_value, is_called FROM %s;'
			ELSE 'SELECT %L AS "=", t FROM %s AS t ORDER BY t::text;' END, '= ' || oid::regclass, oid::regclass)
		FROM pg_class WHERE relnamespace = 'weir'::regnamespace AND relkind IN ('r', 'S')});
	my $all = $node->safe_psql('postgres', $queries . q{
		SELECT '= dumped', o::regclass, c FROM pg_extension, unnest(extconfig, extcondition) AS u (o, c) WHERE extname = 'weir' ORDER BY 2;
		-- (the owner's grow with the version)
		SELECT '= privileges', o, a.grantee::regrole, string_agg(a.privilege_type, ' ' ORDER BY a.privilege_type)
		FROM (SELECT oid::regclass::text, relowner, coalesce(relacl, acldefault(CASE relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, relowner))
			  FROM pg_class WHERE relnamespace = 'weir'::regnamespace AND relkind IN ('r', 'v', 'S')
			  UNION ALL SELECT oid::regprocedure::text, proowner, coalesce(proacl, acldefault('f', proowner))
			  FROM pg_proc WHERE pronamespace = 'weir'::regnamespace) AS p (o, owner, acl), aclexplode(acl) AS a
		WHERE a.grantee <> owner GROUP BY 2, 3 ORDER BY 2, 3::text});
	my %by_name;
	$by_name{ (split /\|/)[0] } .= "$_\n" foreach split /^(?== )/m, $all;
	return \%by_name;
}

# Not preloaded, nothing moves.
my @quiet = ('postgresql.conf', 'shared_preload_libraries', "''");
my @moving = ('postgresql.conf', 'shared_preload_libraries', "'weir'");
$old->adjust_conf(@quiet);
$old->start;
my $before = everything($old);
$old->stop;
$old->adjust_conf(@moving);
cmp_ok(scalar(keys %$before), '>', 15, 'much is to be kept');
like($before->{'= weir.task_run'}, qr/,copy,/, 'and what is in them');

my $new = weir_node('new', @init, start => 0,
	conf => join('', map { "weir.$_->[0] = '" . $old->basedir . "/$_->[1]'\n" } [ 'secret_key_file', 'weir.key' ], [ 'secret_directories', 'secrets' ]));
chdir PostgreSQL::Test::Utils::tempdir() or die "chdir: $!";
$new->command_ok(
	[
		'pg_upgrade', '--no-sync',
		'-d' => $old->data_dir,
		'-D' => $new->data_dir,
		'-b' => $old->config_data('--bindir'),
		'-B' => $new->config_data('--bindir'),
		'-s' => $new->host,
		'-p' => $old->port,
		'-P' => $new->port
	],
	'pg_upgrade from ' . $old->config_data('--version') . ' to ' . $new->config_data('--version'));
die 'see ' . $new->data_dir . '/pg_upgrade_output.d' unless Test::More->builder->is_passing;

$new->adjust_conf(@quiet);
$new->start;
my $after = everything($new);
is($after->{$_}, $before->{$_}, substr($_, 2) . ': as before') foreach sort keys %{ { %$before, %$after } };
$new->stop;
$new->adjust_conf(@moving);
$new->start;

is(wait_for_run($new, $flying), 'succeeded', 'what was in flight lands');
is($cloud->started('adf.createRun'), 1, 'begun once, and asked for with a secret that can still be read');
is($new->safe_psql('postgres', "SELECT count(*) FROM public.landed WHERE row_audit_id = $flying"), '1', 'what depends on it followed');
$new->safe_psql('postgres', "SELECT weir.approve($asking, 'w', 'goes on')");
is(wait_for_run($new, $asking), 'succeeded', 'what waited can be approved');
$new->safe_psql('postgres', "SELECT weir.log_execution_end($outside)");
is($new->safe_psql('postgres', "SELECT status FROM weir.run WHERE run_id = $outside"), 'succeeded', 'what went on outside ends');

$new->safe_psql('postgres', 'CREATE TABLE public.transformed (LIKE public.landed); GRANT ALL ON public.transformed TO owner');
my $next = weir_trigger($new, 'load');
is(wait_for_run($new, $next), 'succeeded', 'a new run works');
is($new->safe_psql('postgres', "SELECT start_status, row_audit_id FROM weir.run WHERE run_id = $next"), "D|$failed", 'and resumes after landing');
$new->safe_psql('postgres', 'DROP EXTENSION weir; CREATE EXTENSION weir');

done_testing();
