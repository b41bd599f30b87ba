"""Puts measured numbers into a page: record.py MARK FILE PAGE replaces what is between the markers of MARK."""

import sys


def record(mark, text, page):
    begin, end = f"<!-- {mark}: begin -->\n", f"<!-- {mark}: end -->"
    before, found, rest = page.partition(begin)
    after = rest.partition(end)[2]
    if not found or end not in rest:
        raise SystemExit(f"the page has no markers for {mark}")
    return f"{before}{begin}\n{text.strip()}\n\n{end}{after}"


def main(mark, source, target):
    with open(source, encoding="utf-8") as file:
        text = file.read()
    with open(target, encoding="utf-8") as file:
        page = file.read()
    page = record(mark, text, page)
    with open(target, "w", encoding="utf-8") as file:
        file.write(page)


if __name__ == "__main__":
    main(*sys.argv[1:])
