"""What a run of Ray's tests came to, test by test, as pytest's junit XML tells it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PASSED, FAILED, ERROR, SKIPPED, ABSENT = "passed", "failed", "error", "skipped", "absent"
_WORDS = {"PASSED": PASSED, "FAILED": FAILED, "ERROR": ERROR, "SKIPPED": SKIPPED, "XFAIL": SKIPPED, "XPASS": PASSED}
_MISSING = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one test."""

    what: str  # PASSED, FAILED, ERROR, SKIPPED, or ABSENT: it did not run
    why: str = ""  # the first line of what pytest says


Outcomes = Mapping[str, Outcome]  # by test id: "test_x[1]" or "TestThis::test_x", without the file


def read(path: Path, stem: str) -> dict[str, Outcome]:
    """All tests of a file called `stem`.py; {} where pytest wrote nothing. What is not a test, such as a file that
    could not be collected, has the id ""."""
    try:
        root = ET.parse(path).getroot()
    except (FileNotFoundError, ET.ParseError):  # pytest was killed before or while it wrote
        return {}
    found: dict[str, Outcome] = {}
    for case in root.iter("testcase"):
        test, outcome = _id(case, stem), _outcome(case)
        # An error at teardown is a second entry for the same test: the worse one counts.
        if test not in found or found[test].what == PASSED:
            found[test] = outcome
    return found


def read_log(log: str, stem: str) -> dict[str, Outcome]:
    """The same from the lines that `pytest -v` prints, where it was killed before it could write its XML."""
    found: dict[str, Outcome] = {}
    for test, word in re.findall(rf"^\S*\b{re.escape(stem)}\.py::(.+?) ({'|'.join(_WORDS)})\b", log, re.MULTILINE):
        if test not in found or found[test].what == PASSED:
            found[test] = Outcome(_WORDS[word])
    return found


def missing_packages(outcomes: Outcomes, log: str) -> tuple[str, ...]:
    """Top-level modules that a file wanted and that are not installed, if it could not be collected."""
    if any(test for test in outcomes):
        return ()
    text = log + "".join(one.why for one in outcomes.values())
    return tuple(sorted({name.partition(".")[0] for name in _MISSING.findall(text)}))


def _id(case: ET.Element, stem: str) -> str:
    name, classes = case.get("name", ""), case.get("classname", "").split(".")
    if stem not in classes:
        return ""  # pytest's entry for a file that it could not import
    after = classes[len(classes) - classes[::-1].index(stem) :]
    return "::".join([*after, name])


def _outcome(case: ET.Element) -> Outcome:
    for tag, what in (("error", ERROR), ("failure", FAILED), ("skipped", SKIPPED)):
        child = case.find(tag)
        if child is not None:
            message, text = child.get("message", ""), child.text or ""
            if not case.get("classname"):  # a file that could not be imported: why is in the text alone
                return Outcome(what, f"{message}\n{text}")
            return Outcome(what, (message or text).strip().partition("\n")[0][:300])
    return Outcome(PASSED)
