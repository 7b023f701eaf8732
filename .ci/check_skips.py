"""Fail if pytest skipped what CI should have run: check_skips.py JUNIT_XML ALLOWED_SKIPS."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path


def allowed_patterns(path: Path) -> list[re.Pattern[str]]:
    patterns = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        pattern, mark, reason = line.partition(" # ")
        if not mark or not reason.strip():
            raise SystemExit(f"{path}:{number}: say why after ' # '")
        patterns.append(re.compile(pattern))
    return patterns


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
    patterns = allowed_patterns(Path(allowed))
    bad = 0
    for text in skipped(Path(junit)):
        ok = any(pattern.search(text) for pattern in patterns)
        bad += not ok
        print(f"skipped, {'allowed' if ok else 'NOT ALLOWED'}: {text}")
    if bad:
        print(f"{bad} skipped that should have run; if a skip is right, say so and why in {allowed}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
