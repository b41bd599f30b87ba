# JSON nested as deep as PostgreSQL allows, wherever weir takes or makes some:
# it is refused where it comes in, or read again wherever it was stored, and
# never an error of the conductor, which everybody else needs.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirSignIn;
use WeirTest;

my $json = JSON::PP->new->canonical->ascii->max_depth(3000);
my $node = weir_node('deep');
my $cloud = weir_cloud($node, speed => 50);

sub value { return $node->safe_psql('postgres', $_[0]) }
sub conductor { return value(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'weir conductor'}) }

wait_until($node, 'the conductor is there', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'weir conductor'});
my $conductor = conductor();
create_connection($node, 'api', 'http', $cloud->address . '/http', { type => 'none' });

# A pipeline; its run and how that ended.
my $number = 0;
sub run
{
	my ($tasks) = @_;
	my $name = 'p' . ++$number;

	value("SELECT weir.create_pipeline('$name', " . literal($json->encode({ tasks => $tasks,
					retry => { max_attempts => 1 } })) . ')');
	my $run = value("SELECT weir.trigger('$name')");
	return ($run, wait_for_run($node, $run));
}

my $given = "{\"parameters\": {\"given\": {\"type\": \"json\", \"default\": null}}, \"tasks\": [{\"name\": \"t\", \"kind\": \"sql\", \"spec\": {\"sql\": \"SELECT {{ params.given }}\"}}]}";
value("SELECT weir.create_pipeline('given', '$given')");
value("SELECT weir.create_pipeline('waiting', '{\"tasks\": [{\"name\": \"w\", \"kind\": \"wait\", \"spec\": {\"signal\": \"s\"}}, {\"name\": \"t\", \"kind\": \"sql\", \"depends_on\": [\"w\"], \"spec\": {\"sql\": \"SELECT {{ tasks.w.output }}\"}}]}')");

# The id of a run, or the error of who asks for it
sub try_value
{
	my ($sql) = @_;
	my ($code, $out, $err) = $node->psql('postgres', $sql);
	return $code == 0 ? $out : $err =~ /ERROR:  (.*)/ ? $1 : $err;
}

my $refers = { name => 'then', kind => 'sql', spec => { sql => 'SELECT 1 AS a WHERE {{ tasks.first.output.rowsRead }} = 1' }, depends_on => ['first'] };
my @values = ((map { [ "$_ deep", "(repeat('[', $_) || repeat(']', $_))::jsonb", $_ <= 190 ? 1 : $_ > 200 ? 0 : undef ] } (150, 196, 197, 198, 199, 200, 201, 500, 3000)),
	[ 'a number of a thousand digits', q{'[1e999]'::jsonb}, 1 ], [ 'a number of five thousand digits', q{'[1e5000]'::jsonb}, 0 ],
	[ 'thousands of long numbers', q{to_jsonb(array_fill(1e999, ARRAY[3000]))}, undef ],
	[ 'thousands of very long numbers', q{to_jsonb(array_fill(1e100000, ARRAY[3000]))}, 0 ]);
foreach my $case (@values)
{
	my ($how, $sql, $is_fine) = @$case;
	my $expected = !defined $is_fine ? qr/^succeeded$|^failed (22|54)|too deep|too long|longer than/ : $is_fine ? qr/^succeeded/ : qr/^failed 54|too deep|too long|longer than|out of range/;

	my ($run, $status) = run([ { name => 'first', kind => 'sql', spec => { sql => "SELECT $sql AS a" } }, $refers ]);
	is($status, 'succeeded', "rows: $how, and somebody who refers to them");

	my $each = { name => 'first', kind => 'for_each', spec => { items => { sql => "SELECT $sql AS a" }, task => { kind => 'sql', spec => { sql => 'SELECT {{ item.a }} AS a' } } } };
	($run, $status) = run([ $each, { name => 'then', kind => 'sql', spec => { sql => 'SELECT {{ tasks.first.output }}' }, depends_on => ['first'] } ]);
	$status .= ' ' . value("SELECT coalesce(min(error_code), '') FROM weir.attempt WHERE run_id = $run");
	like($status =~ s/ $//r, $expected, "items: $how: $status");

	$run = try_value("SELECT weir.trigger('given', jsonb_build_object('given', $sql))");
	$status = $run =~ /^\d+$/ ? wait_for_run($node, $run) : $run;
	like($status, $expected, "a parameter: $how: $status");

	$run = value("SELECT weir.trigger('waiting')");
	my $sent = try_value("SELECT weir.signal('s', $sql, $run)");
	$status = $sent;
	if ($sent =~ /^\d+$/) { $status = wait_for_run($node, $run) }
	else { value("SELECT weir.cancel($run)"); wait_for_run($node, $run) }
	like($status, $expected, "a signal: $how: $status");
}
is((run([ { name => 'other', kind => 'sql', spec => { sql => 'SELECT 1' } } ]))[1], 'succeeded', 'others go on');
is(conductor(), $conductor, 'and it is the same conductor');
my @lines = grep { /could not read stored|weir (conductor|launcher).*(ERROR|FATAL|PANIC)/ } split /\n/, PostgreSQL::Test::Utils::slurp_file($node->logfile);
is(scalar(@lines), 0, 'which has met no error') or diag(join("\n", @lines[0 .. ($#lines > 10 ? 10 : $#lines)]));
$node->stop;

done_testing();
