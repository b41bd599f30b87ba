# The examples of the documentation, as they are printed: whoever copies one
# gets what it says.  "..." stands for an id of the reader's own.

use strict;
use warnings FATAL => 'all';

use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

use WeirTest;

my $guid = '431e8d7b-0000-4000-8000-00000000000';
my $json = JSON::PP->new->canonical->ascii;
my $node = weir_node('doc_examples', conf => "weir.allowed_hosts = 'management.azure.com, login.microsoftonline.com, "
	  . "*.azuredatabricks.net, *.windows.net, *.azure.net, cache.example.com, *.fabric.microsoft.com, 127.0.0.1'\n");
my $secrets = $node->basedir . '/secrets';

sub value { return $node->safe_psql('postgres', $_[0]); }

# Blocks of code of a file: [line, text]
sub blocks
{
	my ($name) = @_;
	my @blocks;
	my $at = 0;

	open(my $file, '<', "$WeirTest::root/$name") or die "$name: $!";
	while (my $line = <$file>)
	{
		chomp $line;
		if ($line =~ s/^ {4}//)
		{
			push @blocks, [ $., '' ] unless $at;
			$blocks[-1][1] .= "$line\n";
			$at = 1;
		}
		elsif ($line ne '' || !$at) { $at = 0 }
		else { $blocks[-1][1] .= "\n" }
	}
	close $file;
	return @blocks;
}

# Objects that begin a line.
sub objects
{
	my ($text) = @_;
	my @found;

	while ($text =~ /^(?=\{)/mg)
	{
		my $rest = substr($text, pos $text);
		my $parser = JSON::PP->new->canonical;
		my $object = eval { ($parser->decode_prefix($rest))[0] };
		push @found, $object // $@;
		my (undef, $length) = defined $object ? $parser->decode_prefix($rest) : (undef, 1);
		pos($text) += $length;
	}
	return @found;
}

# A definition around a task: what it depends on and refers to is there.
sub definition
{
	my ($task) = @_;
	return $task if exists $task->{tasks};
	my $text = $json->encode($task);
	my %above = map { $_ => 1 } $text =~ /\{\{tasks\.(\w+)/g, @{ $task->{depends_on} // [] };
	my %params = map { $_ => { type => 'date', default => '2026-01-01' } } $text =~ /\{\{params\.(\w+)/g;
	return {
		parameters => \%params,
		tasks => [ (map { { name => $_, kind => 'noop' } } sort keys %above), { %$task, depends_on => [ sort keys %above ] } ] };
}

# --- the five minutes of README
my ($five) = grep { $_->[1] =~ /^CREATE TABLE sales/ } blocks('README.md');
$node->safe_psql('postgres', $five->[1]);
is(value("SELECT string_agg(status, ' ') FROM weir.runs"), 'succeeded', 'the pipeline of README runs');
is(value('SELECT day, amount FROM totals'), '2013-01-02|14950', 'and has the totals');
my ($outside) = grep { $_->[1] =~ /log_execution_start/ } blocks('README.md');
$node->safe_psql('postgres', $outside->[1] =~ s/42/(SELECT max(run_id) FROM weir.runs)/r);
is(value("SELECT status FROM weir.runs WHERE pipeline_name = 'load_customers'"), 'succeeded', 'an outside orchestrator is answered');

# --- connections, as the examples make them
my %made;
foreach my $file (qw(doc/pipelines.md doc/connections.md))
{
	foreach my $block (blocks($file))
	{
		my ($line, $sql) = @$block;
		foreach my $statement ($sql =~ /^(SELECT weir\.create_(?:secret|connection)\(.*?\);)/msg)
		{
			my ($name) = $statement =~ /\('(\w+)'/;
			next if $made{$name}++;
			$statement =~ s,file:/etc/weir/secrets,file:$secrets,;
			append_to_file("$secrets/$1", 'not one') if $statement =~ m,file:\Q$secrets\E/(\w+),;
			$statement =~ s/"\.\.\."/"${guid}1"/g;
			value("SELECT weir.create_secret('$_', 'x')") foreach grep { !$made{$_}++ } $statement =~ /"client_secret": "(\w+)"/g;
			my ($rc, $out, $err) = $node->psql('postgres', $statement);
			is($err, '', "$file, line $line: $name");
		}
	}
}
value("SELECT weir.create_connection('$_', 'http', 'https://account.queue.core.windows.net')") foreach qw(scoring reports crm);

# --- tasks and definitions
value(q{
	CREATE TABLE public.object (name text, watermark date, is_active boolean);
	CREATE SCHEMA features; CREATE TABLE features.customer (customer_id integer, orders_30d integer, last_order date, day date);
	CREATE FUNCTION load_sales(bigint) RETURNS integer LANGUAGE sql AS 'SELECT 1';
	SELECT weir.create_pipeline('load_flights', '{"parameters": {"day": {"type": "date"}}, "tasks": [{"name": "clean", "kind": "noop"}]}')});
my $count = 0;
foreach my $block (blocks('doc/pipelines.md'))
{
	my ($line, $text) = @$block;
	$text =~ s/"item": "431e8d7b-\.\.\."/"item": "${guid}2"/;
	$text =~ s,/workspaces/\.\.\./sqlEndpoints/\.\.\./,/workspaces/${guid}3/sqlEndpoints/${guid}4/,;
	foreach my $task (objects($text))
	{
		fail("doc/pipelines.md, line $line: $task"), next unless ref $task;
		# a spec alone is one of SQL
		$task = { name => 'do', kind => 'sql', spec => { %$task, sql => 'SELECT {{params.day}}' } } unless exists $task->{kind} || exists $task->{tasks};
		delete $task->{spec}{role} if ($task->{kind} // '') eq 'sql';
		my $text = $json->encode(definition($task));
		my ($rc, $out, $err) = $node->psql('postgres', "SELECT weir.create_pipeline('doc_" . ++$count . "', \$d\$$text\$d\$)");
		is($err, '', "doc/pipelines.md, line $line: $task->{kind}") if exists $task->{kind};
		is($err, '', "doc/pipelines.md, line $line: a definition") if exists $task->{tasks};
	}
}
cmp_ok($count, '>=', 20, 'the examples were found');

# --- looking at runs
my $run = weir_trigger($node, 'load_flights', params => '{"day": "2026-07-01"}');
is(wait_for_run($node, $run), 'succeeded', 'a run to look at');
my ($far) = grep { $_->[1] =~ /weir\.progress\(17\)/ } blocks('doc/operation.md');
my ($rc, $out, $err) = $node->psql('postgres', $far->[1] =~ s/\b17\b/$run/gr);
is($rc, 0, 'progress and watch') or diag($err);
like($err, qr/clean: succeeded/, 'tell of it');
my ($before) = grep { $_->[1] =~ /FROM weir\.plan\(/ } blocks('doc/pipelines.md');
like(value($before->[1]), qr/^0\|\|E\|/, 'a plan');

$node->stop;
done_testing();
