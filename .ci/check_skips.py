"""Fail if pytest skipped what CI should have run, or if what is allowed to be skipped is skipped no more.

check_skips.py JUNIT_XML ALLOWED_SKIPS: is everything that this run skipped allowed?
check_skips.py --stale ALLOWED_SKIPS JUNIT_XML...: after all runs: which lines allow what none of them skipped? Most of those depend on
the machine, so that is a warning. A line with words that no test's source has can never match again: that is a failure.
"""

from __future__ import annotations

import ast
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
_WORDS = re.compile(r"[\w /'-]{6,}")  # of a pattern: long enough to be found by chance nowhere


@dataclass(frozen=True)
class Allowed:
    """A line of the list."""

    number: int
    pattern: re.Pattern[str]


def allowed_lines(path: Path) -> list[Allowed]:
    lines = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        pattern, mark, reason = line.partition(" # ")
        if not mark or not reason.strip():
            raise SystemExit(f"{path}:{number}: say why after ' # '")
        lines.append(Allowed(number, re.compile(pattern)))
    return lines


def skipped(path: Path) -> list[str]:
    """Every skipped or expected-to-fail test of the report as 'id: reason'."""
    found = []
    for case in ET.parse(path).getroot().iter("testcase"):
        for skip in case.findall("skipped"):
            name = "::".join(part for part in (case.get("classname"), case.get("name")) if part)
            found.append(f"{name}: {skip.get('message') or skip.get('type') or 'no reason given'}")
    return found


def main(junit: str, allowed: str) -> int:
    if not Path(junit).exists():
        print(f"no report {junit}: pytest did not come to its end")
        return 1
    lines = allowed_lines(Path(allowed))
    bad = 0
    for text in skipped(Path(junit)):
        ok = any(line.pattern.search(text) for line in lines)
        bad += not ok
        print(f"skipped, {'allowed' if ok else 'NOT ALLOWED'}: {text}")
    if bad:
        print(f"{bad} skipped that should have run; if a skip is right, say so and why in {allowed}")
    return 1 if bad else 0


def stale(allowed: str, junits: Iterable[str], tests: Path = TESTS) -> int:
    """Lines that match no skip of these runs. Runs that were not made here have no report, and are not missed."""
    texts = [text for junit in junits if Path(junit).exists() for text in skipped(Path(junit))]
    unused = [line for line in allowed_lines(Path(allowed)) if not any(line.pattern.search(text) for text in texts)]
    said = "\n".join(_strings(tests)) if unused else ""
    bad = 0
    for line in unused:
        words = _WORDS.findall(re.sub(r"\\[a-zA-Z]\+?", "\n", line.pattern.pattern).replace("\\", ""))
        is_dead = bool(words) and not all(each.strip() in said for each in words)
        bad += is_dead
        why = "STALE: no test says so any more; remove it" if is_dead else "warning: nothing was skipped by it here"
        print(f"{allowed}:{line.number}: {line.pattern.pattern}: {why}")
    return 1 if bad else 0


def _strings(tests: Path) -> Iterator[str]:
    """Every text in the tests' sources: also of names, since a pattern may be of a test's id; and of C programs all."""
    for path in tests.rglob("*.[ch]"):
        yield re.sub(r'"\s*"', "", path.read_text())  # literals that stand side by side are one
    for path in tests.rglob("*.py"):
        yield path.stem
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                yield node.name


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stale"]:
        sys.exit(stale(sys.argv[2], sys.argv[3:]))
    sys.exit(main(*sys.argv[1:]))
