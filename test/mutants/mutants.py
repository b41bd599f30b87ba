#!/usr/bin/env python3
"""Mutants: small changes that break one invariant of weir, each with the test that must notice.

    mutants.py check                        findings, one a line (nothing: all is well)
    mutants.py list [PATTERN ...]           "NAME PART TESTS" of all, or of these; a pattern with a slash is of their file
    mutants.py queue [PATTERN ...]          the same, and "test PART TESTS" before the mutants of a test
    mutants.py apply NAME SAVED             change the file of the mutant, its old text goes to SAVED
    mutants.py restore NAME SAVED           and back again
    mutants.py verdict PART LOG             "failed", "passed" or "error", from the output of test/run.sh

A file NN-name.mutant is plain text:

    invariant: 5
    what: a run in flight reads the newest version instead of the one it pinned
    file: src/runlog/advance.c
    test: tap 070_invariants
    --- find
    one or several whole lines, occurring exactly once in the file
    --- put
    the lines in their place
    --- end

There may be several pairs of find and put.
"""

import fnmatch
import pathlib
import re
import sys

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parent.parent
TESTS = {"tap": "test/t/{}.pl", "regress": "test/sql/{}.sql", "isolation": "test/specs/{}.spec",
         "unit": "test/{}/Makefile"}     # "unit" itself, the folders in it, and "fuzz"
FORM = re.compile(r"((?:[a-z]+: [^\n]+\n)+)((?:--- find\n.+?\n--- put\n(?:.*?\n)??)+)--- end\n", re.DOTALL)
PAIR = re.compile(r"--- find\n(.+?\n)--- put\n(.*?)(?=--- find\n|\Z)", re.DOTALL)
FIELDS = ["invariant", "what", "file", "test"]


class Malformed(Exception):
    pass


class Mutant:
    def __init__(self, path):
        self.name = path.stem
        match = FORM.fullmatch(path.read_text(encoding="utf-8"))
        if not match:
            raise Malformed("is not of the form described in mutants.py")
        fields = [line.split(": ", 1) for line in match[1].splitlines()]
        if [name for name, _ in fields] != FIELDS:
            raise Malformed(f"needs the lines {', '.join(FIELDS)}, in this order")
        self.invariant, self.what, self.file, test = (value.strip() for _, value in fields)
        self.pairs = PAIR.findall(match[2])
        self.part, *self.tests = test.split()

    def findings(self):
        if not re.fullmatch(r"[0-9]{2}-[a-z0-9-]+", self.name):
            yield "the name must be like 01-what-it-breaks"
        if not re.fullmatch(r"[0-9]+", self.invariant) or not 1 <= int(self.invariant) <= 13:
            yield f"there is no invariant {self.invariant}"
        if self.part not in TESTS or not self.tests:
            yield f"test: one of {', '.join(TESTS)} and the name of a test"
        for test in self.tests:
            places = [test, f"unit/{test}"] if self.part == "unit" else [test]
            if self.part in TESTS and not any((ROOT / TESTS[self.part].format(place)).is_file() for place in places):
                yield f"there is no test {self.part} {test}"
        if not (ROOT / self.file).is_file():
            yield f"{self.file} does not exist"
            return
        for find, put in self.pairs:
            number = occurrences(self._text(), find)
            if number != 1:
                yield f"occurs {number} times in {self.file}: {find.splitlines()[0].strip()} ..."
            if find == put:
                yield f"changes nothing: {find.splitlines()[0].strip()} ..."

    def _text(self):
        return (ROOT / self.file).read_text(encoding="utf-8")

    def apply(self, saved):
        text = self._text()
        pathlib.Path(saved).write_text(text, encoding="utf-8")
        for find, put in self.pairs:
            if occurrences(text, find) != 1:
                raise Malformed(f"{self.file} does not have the lines to replace exactly once")
            text = ("\n" + text).replace("\n" + find, "\n" + put)[1:]
        (ROOT / self.file).write_text(text, encoding="utf-8")

    def restore(self, saved):
        (ROOT / self.file).write_text(pathlib.Path(saved).read_text(encoding="utf-8"), encoding="utf-8")


def occurrences(text, lines):
    """How often these whole lines are in the text."""
    return sum(1 for match in re.finditer(f"(?=^{re.escape(lines)})", text, re.MULTILINE))


def read(name):
    return Mutant(FOLDER / f"{name}.mutant")


def check():
    for path in sorted(FOLDER.glob("*.mutant")):
        try:
            for finding in Mutant(path).findings():
                print(f"{path.name}: {finding}")
        except (Malformed, UnicodeDecodeError) as problem:
            print(f"{path.name}: {problem}")


def chosen(patterns):
    """By the order of the patterns, then with those of the same test together."""
    mutants = [read(path.stem) for path in sorted(FOLDER.glob("*.mutant"))]
    found = {}
    for pattern in patterns or ["*"]:
        matching = [mutant for mutant in mutants
                    if fnmatch.fnmatchcase(mutant.file if "/" in pattern else mutant.name, pattern)]
        if not matching:
            raise Malformed(f"no mutant matches {pattern}")
        found.update((mutant.name, mutant) for mutant in matching)
    groups = {}
    for mutant in found.values():
        groups.setdefault((mutant.part, *mutant.tests), []).append(mutant.name)
    return groups


def show(patterns, with_tests):
    for test, names in chosen(patterns).items():
        if with_tests:
            print("test", *test)
        for name in names:
            print(name, *test)


def verdict(part, log):
    """
    Lines of run.sh: "tap    12 passed    1 failed   7 s".  Only a failure of the part that was
    asked for counts; if nothing ran at all, nothing is shown.
    """
    passed = failed = 0
    for line in pathlib.Path(log).read_text(encoding="utf-8", errors="replace").splitlines():
        match = re.fullmatch(r"(\S+) +(\d+) passed +(\d+) failed +\d+ s", line)
        if match and match[1].split("/")[0] == part:
            passed += int(match[2])
            failed += int(match[3])
    print("failed" if failed else "passed" if passed else "error")


def main():
    command, *arguments = sys.argv[1:] or ["help"]
    try:
        if command == "check" and not arguments:
            check()
        elif command in ("list", "queue"):
            show(arguments, command == "queue")
        elif command == "apply" and len(arguments) == 2:
            read(arguments[0]).apply(arguments[1])
        elif command == "restore" and len(arguments) == 2:
            read(arguments[0]).restore(arguments[1])
        elif command == "verdict" and len(arguments) == 2:
            verdict(*arguments)
        else:
            sys.exit(__doc__)
    except (Malformed, OSError) as problem:
        sys.exit(f"mutants.py: {arguments and arguments[0]}: {problem}")


if __name__ == "__main__":
    main()
