"""Builds worker.c with all of the core and its crash sites, once a session, and runs cases with it (see worker.c)."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "gismo_core" / "native"
FLAGS = ["-std=gnu17", "-D_GNU_SOURCE", "-DGISMO_SITES", "-O2", "-g1", "-pthread", f"-I{NATIVE}"]
FLAGS += ["-include", str(Path(__file__).with_name("no_flush.h"))]
SCENARIOS = (
    "own",
    "neighbour",
    "foreign",
    "lease",
    "fork",
    "thread",
    "recover",
    "join",
    "rejoin",
    "serve",
    "litmus",
    "large",
)


@dataclass(frozen=True)
class Site:
    """A numbered place of the build; `text` is its line of source."""

    number: int
    kind: str
    file: str
    line: int
    function: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}: {self.text}"


@dataclass(frozen=True)
class Case:
    """What to do at which hit of which site. mode: who looks afterwards (0 a neighbour, 1 a newcomer, 2 all are dead)."""

    action: str
    scenario: str
    site: int = -1
    nth: int = 0
    mode: int = 0
    before: str = "-"  # who dies first: "scenario:site:nth,..."

    def __str__(self) -> str:
        return f"{self.action} {self.scenario} {self.site} {self.nth} {self.mode} {self.before}"


@dataclass
class Result:
    case: Case
    outcome: str = "FAILED"
    seconds: float = 0.0
    files_left: int = 0
    longest_ns: tuple[int, int] = (0, 0)
    longest_what: tuple[str, str] = ("-", "-")
    operations: int = 0
    error: str = "no answer"
    hits: dict[int, int] = field(default_factory=dict)


class Crash:
    """The built worker."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self._hits: dict[str, dict[int, int]] | None = None
        listed = subprocess.run([program, "list"], capture_output=True, text=True, check=True).stdout
        self.sites: list[Site] = []
        for row in listed.splitlines():
            number, kind, file, line, function = row.split()
            text = (NATIVE / file).read_text().splitlines()[int(line) - 1].strip()
            self.sites.append(Site(int(number), kind, file, int(line), function, text))

    def run(self, cases: list[Case]) -> list[Result]:
        """All cases. Never raises for a case that failed: its outcome is FAILED."""
        results = [Result(case) for case in cases]
        lanes = min(os.cpu_count() or 1, 8) + 1  # one more, for its processes also wait for one another

        def one(lane: int) -> None:
            folder = tempfile.mkdtemp(prefix="gismo-crash-", dir="/dev/shm")
            lines = "".join(f"{i} {cases[i]}\n" for i in range(lane, len(cases), lanes))
            ran = subprocess.run([self.program, "cases", f"{folder}/case"], input=lines, capture_output=True, text=True)
            shutil.rmtree(folder, ignore_errors=True)
            current: Result | None = None
            for row in ran.stdout.splitlines():
                words = row.split(None, 9)
                if words[0] == "hits" and current is not None:
                    current.hits[int(words[2])] = int(words[3])
                    continue
                current = results[int(words[0])]
                current.outcome, current.seconds, current.files_left = words[1], int(words[2]) / 1e9, int(words[3])
                current.longest_ns = int(words[4]), int(words[5])
                current.longest_what = words[6], words[7]
                current.operations = int(words[8])
                current.error = words[9]

        with ThreadPoolExecutor(lanes) as pool:
            list(pool.map(one, range(lanes)))
        return results

    def run_all(self, action: str, cases: list[tuple[str, int, int, int, str]]) -> list[Result]:
        return self.run([Case(action, *case) for case in cases])

    def complain(self, results: list[Result]) -> None:
        complain(results)

    @property
    def hit_sites(self) -> set[int]:
        """Sites that the plain scenarios come by."""
        return {site for sites in self.hits.values() for site in sites}

    def selftest(self, kind: int) -> str:
        folder = tempfile.mkdtemp(prefix="gismo-crash-", dir="/dev/shm")
        ran = subprocess.run([self.program, "selftest", f"{folder}/case", str(kind)], capture_output=True, text=True)
        shutil.rmtree(folder, ignore_errors=True)
        return ran.stdout.strip()

    @property
    def hits(self) -> dict[str, dict[int, int]]:
        """For each scenario: how often it comes by each site when nobody dies."""
        if self._hits is None:
            results = self.run([Case("count", scenario) for scenario in SCENARIOS])
            complain(results)
            self._hits = {r.case.scenario: r.hits for r in results}
        return self._hits

    def find(self, function: str, text: str = "") -> list[int]:
        """The sites of a function, or those of its lines with this text."""
        return [s.number for s in self.sites if s.function == function and text in s.text]

    def deaths(self, count: int, seed: int) -> list[str]:
        """What a recovering victim meets: up to three deaths, at random sites, and some that chance would miss."""
        rng = random.Random(seed)
        places = [
            (scenario, site, hits)
            for scenario in ("own", "neighbour", "foreign", "lease", "fork")
            for site, hits in self.hits[scenario].items()
        ]
        specs = [
            ",".join(
                f"{scenario}:{site}:{rng.choice((1, hits, rng.randint(1, hits)))}"
                for scenario, site, hits in rng.sample(places, rng.randint(1, 3))
            )
            for _ in range(count)
        ]
        sealed = self.find("object_publish")[0]
        # In the middle of returning arenas and, after them, slot groups: before and after the agreement.
        agree = self.find("write_line")[0]
        written = self.hits["lease"][agree]
        specs += [f"lease:{agree}:{written - 8 * k}" for k in range(min(30, written // 8))]
        returning = [s for f in ("return_empty_arenas", "return_empty_groups", "close_group") for s in self.find(f)]
        specs += [f"lease:{site}:1" for site in returning if site in self.hits["lease"]]
        # One that died while it buried another.
        specs += [f"own:{sealed}:1,recover:{site}:1" for site in self.find("host_bury")]
        # Holding an arena.
        specs += [
            f"own:{site}:{n}" for site in self.find("change_bits") + self.find("page_intent_done") for n in (1, 4)
        ]
        specs += [f"own:{site}:1" for site in self.find("make_table") + self.find("insert_at")]
        # Half-way in asking others for a delete, of a slot used for the first time and of one used again.
        specs += [
            f"{scenario}:{site}:{n}"
            for scenario in ("neighbour", "foreign")
            for site in self.find("chunk_request_delete")
            for n in range(1, self.hits[scenario].get(site, 0) + 1)
        ]
        specs += [f"own:{site}:3" for site in self.find("object_begin_locked")]
        return list(dict.fromkeys(specs))

    def nested(self, specs: list[str]) -> dict[str, dict[int, int]]:
        """How often a recovery from these deaths comes by each site."""
        results = self.run([Case("count", "recover", before=spec) for spec in specs])
        complain(results)
        return {r.case.before: r.hits for r in results}


def complain(results: list[Result]) -> None:
    """Fails if a case did, saying which and what was found, one line for each kind of finding."""
    failed: dict[str, list[Result]] = defaultdict(list)
    for r in results:
        if r.outcome == "FAILED":
            failed["".join(c for c in r.error[:60] if not c.isdigit())].append(r)
    lines = [f"{len(same)} times, such as `{same[0].case}`: {same[0].error}" for same in failed.values()]
    assert not failed, "\n".join(lines)


@pytest.fixture(scope="session")
def crash(tmp_path_factory: pytest.TempPathFactory) -> Crash:
    """The worker, built from the core as it is now."""
    folder = tmp_path_factory.mktemp("crash")
    compiler = os.environ.get("CC", "cc")
    sources = [*sorted(NATIVE.glob("*.c")), Path(__file__).with_name("worker.c")]

    def build(source: Path) -> Path:
        target = folder / f"{source.stem}.o"
        subprocess.run([compiler, *FLAGS, '-DGISMO_VERSION="sites"', "-c", source, "-o", target], check=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(build, sources))
    program = folder / "worker"
    subprocess.run([compiler, *objects, "-pthread", "-o", program], check=True)
    return Crash(program)
