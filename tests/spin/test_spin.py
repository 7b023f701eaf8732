"""The protocols of gismo_core/FORMAT.md, checked exhaustively by spin, and mutants of them that must fail.

Each model names its configurations and mutants in its head comment:

    CONFIGS: A B
    MUTANTS A: FLAG ...

A configuration must be verified to the end without an error; with any one of its mutant flags an assertion must fail.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODELS = sorted(path.stem for path in HERE.glob("*.pml"))
DEPTH = 20_000
MEMORY_MIB = 2_000
LIMIT_S = 120
AT_A_TIME = 2
IDLE = {"OWN"}  # configurations that leave a process type out
UNREACHED = re.compile(r"^\t\S+\.pml:\d+, state \d+, .*$", re.MULTILINE)

needs_spin = pytest.mark.skipif(shutil.which("spin") is None, reason="spin is not installed (apt-get install spin)")
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed (apt-get install gcc)")

pytestmark = pytest.mark.spin


@dataclass(frozen=True)
class Verdict:
    errors: int
    assertion: bool
    truncated: list[str]
    states: int
    seconds: float
    output: str


def head(model: str) -> str:
    """The first comment of the model: its essay, with its configurations and mutants."""
    text = (HERE / f"{model}.pml").read_text()
    assert text.startswith("/*"), f"{model}.pml does not begin with its essay"
    return text[: text.index("*/")]


def configs(model: str) -> list[str]:
    found = re.findall(r"^ \* CONFIGS: (.+)$", head(model), re.MULTILINE)
    return found[0].split() if found else []


def mutants(model: str, config: str) -> list[str]:
    found = re.findall(rf"^ \* MUTANTS {config}: (.+)$", head(model), re.MULTILINE)
    return [flag for line in found for flag in line.split()]


CORRECT = [(model, config) for model in MODELS for config in configs(model)]
MUTANTS = [(model, config, flag) for model, config in CORRECT for flag in mutants(model, config)]


def verify(model: str, flags: list[str], where: Path, optimise: str) -> Verdict:
    """Builds the verifier in `where` and runs it."""
    defines = [f"-D{flag}" for flag in flags]
    source = str(HERE / f"{model}.pml")
    made = subprocess.run(["spin", "-a", *defines, source], cwd=where, capture_output=True, text=True, timeout=LIMIT_S)
    assert made.returncode == 0, made.stdout + made.stderr
    assert (where / "pan.c").exists(), made.stdout + made.stderr
    gcc = ["gcc", optimise, "-w", "-DSAFETY", f"-DMEMLIM={MEMORY_MIB}", "-o", "pan", "pan.c"]
    built = subprocess.run(gcc, cwd=where, capture_output=True, text=True, timeout=LIMIT_S)
    assert built.returncode == 0, built.stderr
    began = time.monotonic()
    run = subprocess.run(["./pan", f"-m{DEPTH}", "-w23"], cwd=where, capture_output=True, text=True, timeout=LIMIT_S)
    seconds = time.monotonic() - began
    output = run.stdout + run.stderr
    errors = re.search(r"errors: (\d+)", output)
    states = re.search(r"(\d+) states, stored", output)
    assert errors is not None, output
    assert states is not None, output
    signs = ["max search depth too small", "out of memory", "reached -DMEMLIM bound", "Search not completed"]
    return Verdict(
        errors=int(errors.group(1)),
        assertion="assertion violated" in output,
        truncated=[sign for sign in signs if sign in output],
        states=int(states.group(1)),
        seconds=seconds,
        output=output,
    )


@pytest.fixture(scope="session")
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[tuple[str, ...], Future[Verdict]]]:
    """What each selected test asks for, by model, configuration and mutant; in the tests' order, AT_A_TIME at once."""
    wanted = [
        tuple(str(item.callspec.params[name]) for name in ("model", "config", "flag") if name in item.callspec.params)
        for item in request.session.items
        if isinstance(item, pytest.Function) and "verdicts" in item.fixturenames
    ]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        found: dict[tuple[str, ...], Future[Verdict]] = {}
        for key in wanted:
            model, *flags = key
            # A mutant fails soon: compiling costs more than running
            optimise = "-O0" if len(flags) > 1 else "-O1"
            where = tmp_path_factory.mktemp(model)
            found[key] = pool.submit(verify, model, flags, where, optimise)
        yield found
        for future in found.values():
            future.cancel()


def report(capsys: pytest.CaptureFixture[str], what: str, verdict: Verdict) -> None:
    with capsys.disabled():
        print(f"\n{what}: {verdict.states:,} states, {verdict.seconds:.1f} s, errors: {verdict.errors}", end=" ")


@needs_spin
@needs_gcc
@pytest.mark.parametrize(("model", "config"), CORRECT)
def test_protocol_holds(
    model: str, config: str, verdicts: dict[tuple[str, ...], Future[Verdict]], capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = verdicts[model, config].result()
    report(capsys, f"{model} {config}", verdict)
    assert verdict.errors == 0, verdict.output
    assert not verdict.truncated, verdict.output
    # Else the model may hold because something in it never happens. Processes that serve for ever have no end
    if config not in IDLE:
        dead_code = [line for line in UNREACHED.findall(verdict.output) if '"-end-"' not in line]
        assert not dead_code, "never executed:\n" + "\n".join(dead_code)


@needs_spin
@needs_gcc
@pytest.mark.parametrize(("model", "config", "flag"), MUTANTS)
def test_mutant_fails(
    model: str,
    config: str,
    flag: str,
    verdicts: dict[tuple[str, ...], Future[Verdict]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    verdict = verdicts[model, config, flag].result()
    report(capsys, f"{model} {config} {flag}", verdict)
    assert verdict.errors > 0, f"the model holds even so:\n{verdict.output}"
    assert verdict.assertion, f"an error, but no assertion:\n{verdict.output}"


@pytest.mark.parametrize("model", MODELS)
def test_no_flag_is_forgotten(model: str) -> None:
    """Each flag on which the model's code depends is a configuration, a mutant that is run, or a bound with a default."""
    text = (HERE / f"{model}.pml").read_text()
    code = text[len(head(model)) :]
    asked = set(re.findall(r"^\s*#ifn?def (\w+)", code, re.MULTILINE))
    asked |= set(re.findall(r"defined\((\w+)\)", code))
    bounds = set(re.findall(r"^#define (\w+)", code, re.MULTILINE))
    declared = {flag for config in configs(model) for flag in mutants(model, config)}
    named = {flag for line in re.findall(r"^ \* MUTANTS .*$", head(model), re.MULTILINE) for flag in line.split()[3:]}
    assert configs(model), "no line CONFIGS in the head comment"
    assert declared, "no line MUTANTS in the head comment"
    assert named == declared, "a line MUTANTS for a configuration that does not exist"
    assert declared <= asked, f"mutants without code: {sorted(declared - asked)}"
    forgotten = asked - declared - set(configs(model)) - bounds
    assert not forgotten, f"flags that no test runs: {sorted(forgotten)}"


def test_there_are_models() -> None:
    assert {"pin", "pin_incoherent", "register", "ring", "claim", "pages"} <= set(MODELS)
