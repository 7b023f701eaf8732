"""Builds every tests/native/test_*.c over a static core and runs it: plain, and with sanitizers.

A C test is a program: exit status 0 is a pass, 77 a skip (the last line says why), all else a failure. It
may call what the shared library hides, and gets an empty directory in /dev/shm as its working directory,
$TMPDIR and $GISMO_STATE_DIR. A line in it such as

    /* variants: plain asan */

chooses from VARIANTS below; without one it runs in DEFAULT_VARIANTS.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from native_build import VARIANTS, built, run_checked

HERE = Path(__file__).resolve().parent

DEFAULT_VARIANTS = ("plain", "asan", "tsan")

ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    # The handler of guard.c jumps out, so TSan holds all that follows for a part of the handler.
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1:report_signal_unsafe=0",
}
SKIPPED = 77
TSAN_MAPPING = "FATAL: ThreadSanitizer: unexpected memory mapping"
TSAN_TRIES = 8


def variants_of(source: Path) -> list[str]:
    """The variants that a C test asks for in its head."""
    match = re.search(r"^\W*variants:((?: \w+)+)", source.read_text(errors="replace"), re.MULTILINE)
    chosen = match[1].split() if match else list(DEFAULT_VARIANTS)
    unknown = set(chosen) - set(VARIANTS)
    if unknown:
        raise ValueError(f"{source}: unknown variants {sorted(unknown)}, known are {sorted(VARIANTS)}")
    return chosen


def programs(sources: list[Path]) -> list[tuple[str, str]]:
    """All (variant, test) pairs, those of a variant together, so that each core is built once and early."""
    chosen = {source.stem: variants_of(source) for source in sources}
    return [(variant, name) for variant in VARIANTS for name, wanted in chosen.items() if variant in wanted]


@functools.cache
def fixed_addresses() -> tuple[str, ...]:
    """The command before a TSan program: gcc 12's TSan dies under wide address randomisation."""
    command = ("setarch", "x86_64", "--addr-no-randomize")
    works = (
        shutil.which("setarch") and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
    )
    return command if works else ()


def run_program(program: Path, variant: str, *, limit_s: float = 280) -> subprocess.CompletedProcess[str]:
    """Run a C test in an empty directory on shared memory; output and errors come back together."""
    before = fixed_addresses() if variant == "tsan" else ()
    shared_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="gismo-native-", dir=shared_memory) as place:
        environment = {**os.environ, **ENVIRONMENT, "TMPDIR": place, "GISMO_STATE_DIR": f"{place}/state"}
        try:
            return subprocess.run(
                [*before, str(program)],
                cwd=place,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                errors="replace",
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            output = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else late.stdout
            pytest.fail(f"{program} did not end within {limit_s} s\n{output or ''}", pytrace=False)


def judge(program: Path, variant: str) -> None:
    """Run a program and turn its end into pytest's words."""
    done = run_program(program, variant)
    for _ in range(TSAN_TRIES - 1):  # without setarch the mapping fits by luck
        if TSAN_MAPPING not in done.stdout:
            break
        done = run_program(program, variant)
    else:
        if TSAN_MAPPING in done.stdout:
            pytest.skip("ThreadSanitizer cannot map its shadow here")
    if done.returncode == SKIPPED:
        pytest.skip(done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "no reason given")
    if done.returncode:
        pytest.fail(f"{program.name} ({variant}) ended with {done.returncode}\n{done.stdout}", pytrace=False)


@pytest.mark.parametrize(("variant", "name"), programs(sorted(HERE.glob("test_*.c"))))
def test_program(variant: str, name: str) -> None:
    judge(built(variant, name), variant)


# The runner itself: each kind of fault has to be seen, or the tests above prove nothing.

FAULTS = {
    "plain": "int main(void) { return 3; }",
    "asan": (
        "#include <stdlib.h>\n"
        "int main(int n, char **v) { (void)v; char *p = malloc(4); free(p + (n - 1)); return p[n] != p[0] && p[n] == 7; }"
    ),
    "tsan": (
        "#include <pthread.h>\n"
        "static int shared;\n"
        "static void *add(void *p) { for (int i = 0; i < 1000; i++) shared++; return p; }\n"
        "int main(void) { pthread_t t; pthread_create(&t, 0, add, 0); add(0); return pthread_join(t, 0); }"
    ),
}


def compiled(folder: Path, text: str, *flags: str) -> Path:
    source = folder / "fault.c"
    source.write_text(text)
    program = folder / "fault"
    run_checked(["gcc", "-g", "-O0", "-w", "-pthread", *flags, str(source), "-o", str(program)])
    return program


@pytest.mark.parametrize("variant", FAULTS)
def test_runner_sees_the_fault(variant: str, tmp_path: Path) -> None:
    flags = [option.replace("-DGISMO_SANITIZE", "-fsanitize") for option in VARIANTS[variant]]
    program = compiled(tmp_path, FAULTS[variant], *flags)
    with pytest.raises(pytest.fail.Exception, match=r"ended with") as failure:
        judge(program, variant)
    expected = {"plain": "ended with 3", "asan": "heap-use-after-free", "tsan": "data race"}[variant]
    assert expected in str(failure.value)


def test_runner_passes_a_skip_on(tmp_path: Path) -> None:
    program = compiled(tmp_path, '#include <stdio.h>\nint main(void) { puts("no such device"); return 77; }')
    with pytest.raises(pytest.skip.Exception, match="no such device"):
        judge(program, "plain")


def test_variants_are_read_from_the_head(tmp_path: Path) -> None:
    source = tmp_path / "test_x.c"
    source.write_text("/* A test. */\n/* variants: plain sites */\nint main(void);\n")
    assert variants_of(source) == ["plain", "sites"]
    source.write_text("// variants: plian\n")
    with pytest.raises(ValueError, match="unknown variants"):
        variants_of(source)
    source.write_text("int main(void);\n")
    assert variants_of(source) == list(DEFAULT_VARIANTS)
