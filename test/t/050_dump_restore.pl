# What pg_dump keeps: definitions with their versions, restart state,
# watermarks and the sequences, so that no id is ever used twice.

use strict;
use warnings FATAL => 'all';

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $node = weir_node('dump');

# Land succeeds, transform fails for want of a table: the next start is a D.
my $definition = q{{
	"parameters": {"days": {"type": "bigint", "default": 30}},
	"tasks": [
		{"name": "land", "kind": "sql", "phase": "land",
		 "spec": {"sql": "INSERT INTO public.landed VALUES ({{row_audit_id}}, {{params.days}})"}},
		{"name": "transform", "kind": "sql", "phase": "transform", "depends_on": ["land"],
		 "spec": {"sql": "INSERT INTO public.transformed SELECT * FROM public.landed WHERE row_audit_id = {{row_audit_id}}"}}]}};

$node->safe_psql('postgres', qq{
	CREATE ROLE owner LOGIN IN ROLE weir_admin;
	CREATE TABLE public.landed (row_audit_id bigint, days bigint);
	GRANT ALL ON public.landed TO owner;
	SET ROLE owner;
	SELECT weir.create_secret('password', reference => 'env:WEIR_SECRET_PASSWORD', description => 'of the lake');
	SELECT weir.create_connection('lake', 'http', 'http://127.0.0.1:1', '{"type": "pat", "token": "password"}');
	SELECT weir.create_pool('lake', 3, 'of the lake');
	SELECT weir.create_pipeline('load', '{"tasks": [{"name": "first", "kind": "noop", "spec": {}}]}', 'Loads');
	SELECT weir.alter_pipeline('load', '$definition');
	SELECT weir.create_pipeline('paused', '{"tasks": [{"name": "a", "kind": "noop", "spec": {}}]}');
	SELECT weir.pause_pipeline('paused');
	SELECT weir.create_pipeline('plain', '{"tasks": [{"name": "a", "kind": "noop", "spec": {}}]}');
	SELECT * FROM weir.set_config_variable('crm', 'flights', 'watermark', '2026-07-01T00:00:00Z', type => 'timestamptz');
	SELECT * FROM weir.set_config_variable('crm', 'flights', 'watermark', '2026-07-02T00:00:00Z', type => 'timestamptz');
});
my $run = weir_trigger($node, 'load');
is(wait_for_run($node, $run), 'failed', 'landed, not transformed');

# Executions of outside orchestrators that go on when the dump is made.
$node->safe_psql('postgres', "SELECT * FROM weir.log_execution_start('$_')") foreach ('outside', 'plain');

my %kept = (
	secrets => 'SELECT name, reference, description, owner FROM weir.secret',
	connections => 'SELECT name, kind, base_url, auth, options, owner FROM weir.connection',
	pools => 'SELECT name, slots, description, owner, created_at FROM weir.pool',
	pipelines => 'SELECT pipeline_id, name, description, owner, current_version, is_paused FROM weir.pipeline ORDER BY name',
	versions => "SELECT v, weir.describe_pipeline('load', v) FROM generate_series(1, 2) AS v",
	tasks => 'SELECT * FROM weir.task ORDER BY 1, 2, 3',
	state => 'SELECT pipeline_id, next_load_status, origin_row_audit_id, last_run_id FROM weir.pipeline_state ORDER BY 1',
	landings => 'SELECT row_audit_id, pipeline_id, run_id, params FROM weir.landing ORDER BY 1',
	variables => 'SELECT * FROM weir.config_variable',
	history => 'SELECT * FROM weir.config_variable_history ORDER BY change_no',
	sequence => 'SELECT last_value FROM weir.run_id_seq');
my %before = map { $_ => $node->safe_psql('postgres', $kept{$_}) } keys %kept;
like($before{state}, qr/\|D\|$run\|/, 'the next start is a D of this run');
like($before{landings}, qr/^$run\|\d+\|$run\|/, 'which left its landing');

foreach my $format ('plain', 'custom')
{
	my $dbname = "restored_$format";
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$format.dump";

	$node->command_ok([ 'pg_dump', "--format=$format", '-f', $file, '-d', $node->connstr('postgres') ], "$format: dumped");
	$node->safe_psql('postgres', "CREATE DATABASE $dbname TEMPLATE template0");
	$node->command_ok(
		$format eq 'plain'
		? [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($dbname), '-f', $file ]
		: [ 'pg_restore', '--exit-on-error', '-d', $node->connstr($dbname), $file ],
		"$format: restored");
	is($node->safe_psql($dbname, $kept{$_}), $before{$_}, "$format: $_ are the same") foreach sort keys %kept;
	is($node->safe_psql($dbname, 'SELECT count(*) FROM weir.run'), '0', "$format: the run log is not dumped");
	isnt($node->safe_psql($dbname, 'SELECT installation_key FROM weir.installation'),
		$node->safe_psql('postgres', 'SELECT installation_key FROM weir.installation'), "$format: it is another installation");

	# The D restart goes on where the original stood.
	$node->safe_psql($dbname, 'CREATE TABLE public.transformed (LIKE public.landed); GRANT ALL ON public.transformed TO owner');
	my $next = weir_trigger($node, 'load', dbname => $dbname);
	cmp_ok($next, '>', $run, "$format: run ids go on");
	is(wait_for_run($node, $next, undef, dbname => $dbname), 'succeeded', "$format: a run works");
	is($node->safe_psql($dbname, "SELECT start_status, row_audit_id FROM weir.run WHERE run_id = $next"), "D|$run", "$format: it resumes after landing");
	is($node->safe_psql($dbname, 'SELECT row_audit_id, days FROM public.transformed'), "$run|30", "$format: with what the original landed, once");
	my $paused = weir_trigger($node, 'paused', dbname => $dbname);
	my $task = weir_trigger($node, 'plain', dbname => $dbname);
	is(wait_for_run($node, $task, undef, dbname => $dbname), 'succeeded', "$format: another pipeline runs");
	is($node->safe_psql($dbname, "SELECT status FROM weir.run WHERE run_id = $paused"), 'queued', "$format: a paused one does not");
	like($node->safe_psql($dbname, "SELECT * FROM weir.log_execution_start('outside')"), qr/^\d+\|E\|/, "$format: what went on outside starts anew");
	like($node->safe_psql($dbname, "SELECT * FROM weir.log_execution_start('outside')"), qr/^\d+\|A\|/, "$format: once");
}

done_testing();
