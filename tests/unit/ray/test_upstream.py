"""Ray's own tests on both sides: the comparison, what is read from junit XML, and the table. No Ray here."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from ray_upstream import compare, finder, outcomes, report, side, sources
from ray_upstream.outcomes import ERROR, FAILED, PASSED, SKIPPED, Outcome

XML = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="python.ray.tests.test_x" name="test_a[1]" time="1"/>
<testcase classname="test_x.TestIt" name="test_b"><failure message="assert 1 == 2&#10;more">long</failure></testcase>
<testcase classname="test_x" name="test_c"><skipped message="not here"/></testcase>
<testcase classname="test_x" name="test_d"/>
<testcase classname="test_x" name="test_d"><error message="at teardown">long</error></testcase>
</testsuite></testsuites>"""
UNCOLLECTED = """<testsuites><testsuite><testcase classname="" name="test_x"><error message="collection failure">
E   ModuleNotFoundError: No module named 'moto.server'</error></testcase></testsuite></testsuites>"""

GOOD, BAD = {"t": Outcome(PASSED)}, {"t": Outcome(FAILED, "why")}


def test_junit_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(XML)
    assert outcomes.read(tmp_path / "x.xml", "test_x") == {
        "test_a[1]": Outcome(PASSED),
        "TestIt::test_b": Outcome(FAILED, "assert 1 == 2"),
        "test_c": Outcome(SKIPPED, "not here"),
        "test_d": Outcome(ERROR, "at teardown"),
    }
    assert outcomes.read(tmp_path / "nothing.xml", "test_x") == {}


def test_the_log_of_a_killed_run_is_read() -> None:
    log = """collecting ... collected 5 items
test_x.py::test_a[a b] PASSED    [ 20%]
python/ray/tests/test_x.py::TestIt::test_b FAILED  [ 40%]
test_x.py::test_c XFAIL (why)    [ 60%]
test_x.py::test_d PASSED         [ 80%]
test_x.py::test_d ERROR          [ 80%]
test_x.py::test_e """
    assert {test: one.what for test, one in outcomes.read_log(log, "test_x").items()} == {
        "test_a[a b]": PASSED,
        "TestIt::test_b": FAILED,
        "test_c": SKIPPED,
        "test_d": ERROR,
    }


def test_a_file_that_cannot_be_collected_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(UNCOLLECTED)
    read = outcomes.read(tmp_path / "x.xml", "test_x")
    assert outcomes.missing_packages(read, "E ModuleNotFoundError: No module named 'torch'") == ("moto", "torch")
    assert compare.compare([read], [read]) == []
    assert outcomes.missing_packages(GOOD, "ModuleNotFoundError: No module named 'torch'") == ()


@pytest.mark.parametrize(
    ("off", "on", "verdict", "only_with_gismo"),
    [
        ([GOOD], [GOOD], compare.SAME, False),
        ([BAD], [BAD], compare.SAME, False),
        ([GOOD], [BAD], compare.DIFFERENT, False),
        ([GOOD, GOOD, GOOD], [BAD, BAD, BAD], compare.DIFFERENT, False),
        ([GOOD, GOOD], [BAD, GOOD], compare.FLAKY, True),
        ([GOOD, BAD], [BAD, BAD], compare.FLAKY, False),
        ([GOOD], [{}], compare.DIFFERENT, False),
        ([{}], [GOOD], compare.DIFFERENT, False),
    ],
)
def test_verdicts(
    off: list[outcomes.Outcomes], on: list[outcomes.Outcomes], verdict: str, only_with_gismo: bool
) -> None:
    (one,) = compare.compare(off, on)
    assert (one.verdict, one.only_with_gismo) == (verdict, only_with_gismo)
    assert compare.to_run_again(off, on) == (["t"] if verdict == compare.DIFFERENT else [])


def test_a_test_that_did_not_run_again_keeps_its_first_outcome() -> None:
    off, on = [{**GOOD, "u": Outcome(PASSED)}, GOOD], [{**BAD, "u": Outcome(PASSED)}, BAD]
    assert [(one.test, len(one.off), one.verdict) for one in compare.compare(off, on)] == [
        ("t", 2, compare.DIFFERENT),
        ("u", 1, compare.SAME),
    ]


def test_where_the_time_was_over_only_what_ran_on_both_sides_counts() -> None:
    off: list[outcomes.Outcomes] = [{**GOOD, "u": Outcome(PASSED)}]
    assert [one.test for one in compare.compare(off, [BAD], cut_off=True)] == ["t"]
    assert compare.to_run_again(off, [GOOD], cut_off=True) == []
    assert compare.to_run_again(off, [GOOD]) == ["u"]


@pytest.mark.parametrize(
    ("tests", "only", "apart", "collected"),
    [
        ((), "", (), ["test_a[1]", "test_a[2]", "TestIt::test_b", "test_c"]),
        ((), "", ("test_a", "TestIt::test_b"), ["test_c"]),
        ((), "test_a or test_c", ("test_a[1]",), ["test_a[2]", "test_c"]),
        (("test_a",), "test_c", ("test_a",), ["test_a[1]", "test_a[2]"]),
        (("TestIt::test_b",), "", (), ["TestIt::test_b"]),
    ],
)
def test_pytest_runs_what_is_selected(
    tmp_path: Path, tests: tuple[str, ...], only: str, apart: tuple[str, ...], collected: list[str]
) -> None:
    folder = tmp_path / "python" / "ray" / "tests"
    folder.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")  # as in a whole checkout: the root folder is above the tests
    (folder / "conftest.py").touch()
    (folder / "test_x.py").write_text(
        "import pytest\n@pytest.mark.parametrize('n', [1, 2])\ndef test_a(n): ...\n"
        "class TestIt:\n    def test_b(self): ...\ndef test_c(): ...\n"
    )
    source = sources.find(folder / "test_x.py")
    settings = side.Settings(Path(sys.executable), 0, 0, 0, only, apart, tmp_path)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, *side.selection(source, settings, tests)], cwd=folder, capture_output=True, text=True
    )
    found = [line.partition("test_x.py::")[2] for line in ran.stdout.splitlines() if "test_x.py::" in line]
    assert found == collected, ran.stdout + ran.stderr


def test_the_table_keeps_other_rows_and_replaces_its_own(tmp_path: Path) -> None:
    path = tmp_path / "results.md"
    path.write_text("# Results\n")

    def write(name: str, on: outcomes.Outcomes, ray: str = "2.60.0") -> None:
        made = report.FileReport(name, tuple(compare.compare([GOOD], [on])), 7, 3 << 20)
        lost = report.FileReport("ray/tests/test_lost.py", (), 0, 0, "it needs moto")
        report.write_table(path, [made, lost], ray=ray, source="a checkout", date="2026-01-01")

    write("ray/tests/test_x.py", BAD)
    write("ray/tests/test_y.py", GOOD)
    write("ray/tests/test_y.py", GOOD, ray="2.57.0")
    path.write_text(path.read_text() + "text after\n")
    write("ray/tests/test_x.py", GOOD)
    text = path.read_text()
    assert [line for line in text.splitlines() if line.startswith("| 2")] == [
        "| 2.57.0 | `ray/tests/test_y.py` | a checkout | 2026-01-01 | 1 | 1 | 1 | 0 | 0 | 7 | 3 |",
        "| 2.60.0 | `ray/tests/test_x.py` | a checkout | 2026-01-01 | 1 | 1 | 1 | 0 | 0 | 7 | 3 |",
        "| 2.60.0 | `ray/tests/test_y.py` | a checkout | 2026-01-01 | 1 | 1 | 1 | 0 | 0 | 7 | 3 |",
    ]
    assert text.startswith("# Results\n")
    assert text.endswith(f"{report.TABLE.end}\ntext after\n")


def test_what_is_no_test_of_rays_is_refused(tmp_path: Path) -> None:
    tests = tmp_path / "ray" / "python" / "ray" / "tests"
    tests.mkdir(parents=True)
    (tests / "test_x.py").touch()
    (tmp_path / "test_y.py").touch()
    with pytest.raises(SystemExit, match="no such file"):
        sources.find(tests / "test_z.py")
    with pytest.raises(SystemExit, match="not in a package `ray`"):
        sources.find(tmp_path / "test_y.py")
    with pytest.raises(SystemExit, match=r"no conftest\.py"):
        sources.find(tests / "test_x.py")
    (tests / "conftest.py").touch()
    assert sources.find(tests / "test_x.py").name == "ray/tests/test_x.py"


def test_the_finder_finds_tests_and_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "helper_of_upstream.py").write_text("VALUE = 5\n")
    (tmp_path / "other.py").touch()
    monkeypatch.setenv(finder.VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    finder.register()
    found = sys.meta_path[-1]
    assert found.find_spec("ray.other", None) is None
    assert found.find_spec("ray.tests.missing", None) is None
    spec = found.find_spec("ray.tests.helper_of_upstream", None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(module)
    assert module.VALUE == 5
