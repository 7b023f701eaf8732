"""CI's list of skips that are right: what is not on it fails the run, and so does a line that no test can match any more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

CHECK = Path(__file__).resolve().parents[2] / ".ci" / "check_skips.py"


class Run:
    """A repository's tests, its list, and what its runs reported."""

    def __init__(self, folder: Path) -> None:
        (folder / ".ci").mkdir()
        (folder / "tests").mkdir()
        self.check = folder / ".ci" / "check_skips.py"
        self.check.write_text(CHECK.read_text())
        self.folder = folder

    def report(self, name: str, *skips: str) -> None:
        cases = "".join(
            f'<testcase classname="tests.test_x" name="test_{number}"><skipped type="pytest.skip" message={quoteattr(one)}/></testcase>'
            for number, one in enumerate(skips)
        )
        text = f'<testsuites><testsuite><testcase classname="tests.test_x" name="test_ran"/>{cases}</testsuite></testsuites>'
        (self.folder / name).write_text(text)

    def __call__(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, self.check, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path)
    (tmp_path / "allowed").write_text("# why\nno hugetlbfs # pages\nneeds \\d+ cores # small\nmuch too slow # known\n")
    (tmp_path / "tests" / "test_x.py").write_text(
        'import pytest\n\ndef test_1() -> None:\n    pytest.skip("no " "hugetlbfs here")\n    pytest.skip(f"needs {4} cores")\n'
    )
    return made


def test_what_is_not_allowed_fails(run: Run) -> None:
    run.report("a.xml", "no hugetlbfs here", "something else")
    code, said = run("a.xml", "allowed")
    assert code == 1
    assert "skipped, allowed: tests.test_x::test_0: no hugetlbfs here" in said
    assert "skipped, NOT ALLOWED: tests.test_x::test_1: something else" in said
    run.report("a.xml", "no hugetlbfs here")
    assert run("a.xml", "allowed")[0] == 0
    assert run("none.xml", "allowed")[0] == 1


def test_a_line_that_no_test_can_match_any_more_fails(run: Run) -> None:
    run.report("a.xml", "no hugetlbfs here", "needs 8 cores")
    code, said = run("--stale", "allowed", "a.xml")
    assert (code, said.count("allowed:")) == (1, 1), said
    assert "allowed:4: much too slow: STALE" in said
    (run.folder / "allowed").write_text("no hugetlbfs # pages\nneeds \\d+ cores # small\n")
    assert run("--stale", "allowed", "a.xml") == (0, "")


def test_a_line_for_another_machine_is_told_and_no_more(run: Run) -> None:
    (run.folder / "allowed").write_text("no hugetlbfs # pages\nneeds \\d+ cores # small\nonly in C # a program\n")
    run.report("a.xml")
    run.report("b.xml", "needs 8 cores")
    (run.folder / "tests" / "worker.c").write_text('puts("only "\n     "in C");\n')
    code, said = run("--stale", "allowed", "a.xml", "b.xml", "not-run-here.xml")
    assert code == 0
    assert said.splitlines() == [
        "allowed:1: no hugetlbfs: warning: nothing was skipped by it here",
        "allowed:3: only in C: warning: nothing was skipped by it here",
    ]


def test_the_list_of_this_repository_has_no_such_line() -> None:
    done = subprocess.run(
        [sys.executable, CHECK, "--stale", CHECK.parent / "allowed-skips"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout
