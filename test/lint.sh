#!/bin/bash
# lint.sh - rules of the house that need no compiler.  Quick; reads only.
# Rules about the objects of the extension are in test/sql/comments.sql.

set -uo pipefail
shopt -s lastpipe				# check counts in this shell, not in a copy
cd "$(dirname "$0")/.."

PASSED=0
FAILED=0
export LC_ALL=C

# check DESCRIPTION: what comes on stdin is what is wrong, one finding a line
check()
{
	local findings
	findings=$(cat)
	if [ -z "$findings" ]; then
		PASSED=$((PASSED + 1))
	else
		FAILED=$((FAILED + 1))
		printf 'lint: %s\n%s\n' "$1" "$(sed 's/^/    /' <<<"$findings")"
	fi
}

# Files of the repository, also without git.
files()
{
	find . \( -name .git -o -name __pycache__ -o -name results -o -name build -o -name 'tmp_check*' \) -prune \
		-o -type f "$@" -print | sed 's,^\./,,' | sort
}

code() { files \( -name '*.[ch]' -o -name '*.sql' -o -name '*.spec' -o -name '*.py' -o -name '*.p[lm]' -o -name '*.sh' \
	-o -path '*/bench/run' -o -path '*/peers/run' -o -path '*/mutants/run' -o -name Makefile \) ! -name 'weir--*.sql' ! -path './expected/*'; }

xgrep() { xargs -r grep -nIE "$@" /dev/null || true; }

code | while read -r file; do
	lines=$(wc -l <"$file")
	[ "$lines" -le 900 ] || echo "$file: $lines lines"
done | check 'a file holds one subject and has at most 900 lines'

files -name '*.[ch]' ! -path './include/compat.h' | xgrep '^ *#.*PG_VERSION_NUM|\bpg_(attribute_)?noreturn\b' |
	check 'versions of PostgreSQL are told apart in include/compat.h only'

files -path './sql/*.sql' | xgrep -i '\bplpgsql\b|^[[:space:]]*DO[[:space:]]+\$' | grep -v -- ':[[:space:]]*--' |
	check 'no PL/pgSQL in the install script'

files -path './sql/[0-9]*.sql' | xgrep -i 'OR[[:space:]]+REPLACE|IF[[:space:]]+NOT[[:space:]]+EXISTS' |
	grep -v -- ':[[:space:]]*--' | check 'no OR REPLACE or IF NOT EXISTS in the install script: it must own what it creates'

{
	files -path './src/core/*.c' |
		xgrep '#include "(executor|storage|access|catalog|commands|utils/(timestamp|lsyscache|syscache|snapmgr|guc))'
	files -path './src/core/*.c' ! -name mem.c | xgrep '\b(SPI_[a-z]+|GetCurrentTimestamp|ereport|elog) *\('
} | check 'core/ decides without a database, a clock or errors raised'

for file in expected/*.out; do
	[ -f "$file" ] || continue
	name=$(basename "$file" .out)
	plain=$(sed -E 's/_[0-9]+$//' <<<"$name")
	for candidate in "$name" "$plain"; do
		[ -f "test/sql/$candidate.sql" ] || [ -f "test/specs/$candidate.spec" ] && continue 2
	done
	echo "$file"
done | check 'every golden belongs to a test'

for file in test/sql/*.sql test/specs/*.spec; do
	[ -f "$file" ] || continue
	name=$(basename "${file%.*}")
	[ -f "expected/$name.out" ] || echo "$file"
	[ ! -f "sql/$name.sql" ] || echo "$file: sql/$name.sql would be taken in its place"
done | check 'every test has a golden and a name of its own'

files ! -name '*.gz' | xgrep '(/home/|/Users/|/root/|/work/)[A-Za-z0-9_.-]' | grep -v '^test/lint.sh:' |
	check 'no paths of one machine'

# A task may take long on purpose; a test may not wait that way.
{
	files \( -path './test/sql/*' -o -path './test/specs/*' \) |
		xgrep -i '^[[:space:]]*(step[^{]*\{[[:space:]]*)?(SELECT|PERFORM)[[:space:]]+pg_sleep'
	files \( -path './test/t/*' -o -path './test/lib/*' -o -path './test/demo/*.sh' -o -path './test/run.sh' \) |
		xgrep '(^|[^_[:alnum:]>"'"'"'])(u?sleep)[[:space:]]*\(?[[:space:]]*[0-9$]'
} | check 'tests wait for a state, never for a time'

{ code; files -name '*.control' -o -name '*.md' -o -name '*.json'; } | sort -u | xgrep '[[:blank:]]+$' |
	check 'no white space at the end of a line'

{ code; files -name '*.md'; } | sort -u | while read -r file; do
	[ ! -s "$file" ] || [ -z "$(tail -c 1 "$file")" ] || echo "$file: no newline at the end"
	! grep -q $'\r' "$file" || echo "$file: carriage returns"
done | check 'text files end with a newline and have no carriage returns'

code | grep -v '^test/lint.sh$' | xgrep '\b(TODO|FIXME|XXX|HACK)\b' | check 'no marks of unfinished work'

files \( -name '*.sh' -o -path '*/.ci/run' -o -path '*/mutants/run' \) | while read -r file; do
	bash -n "$file" 2>&1
done | check 'shell scripts parse'

if command -v python3 >/dev/null; then
files -name '*.py' | xargs -r python3 -c '
import ast, sys
for name in sys.argv[1:]:
    try:
        ast.parse(open(name, encoding="utf-8").read(), name)
    except SyntaxError as error:
        print(f"{name}: {error}")' | check 'Python parses'

python3 -c '
import json
json.load(open("META.json"))' 2>&1 | check 'META.json parses'

python3 test/mutants/mutants.py check 2>&1 |
	check 'every mutant names a test and finds its lines exactly once'
else
	echo 'lint: no python3 here; Python, META.json and the mutants were not looked at'
fi

version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" weir.control)
{
	grep -q "^WEIR_VERSION = $version\$" Makefile || echo "Makefile does not say $version"
	grep -q "\"version\": \"$version\.[0-9]" META.json || echo "META.json does not say $version"
	grep -q "^## $version" CHANGELOG.md || echo "CHANGELOG.md does not say $version"
} | check 'one version everywhere'

echo "$PASSED passed, $FAILED failed"
[ "$FAILED" = 0 ]
