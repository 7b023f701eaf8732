"""Who runs Ray without Gismo: real processes that map files of the names that count, as the node's /proc shows them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gismo_deviceplugin import loading
from gismo_deviceplugin.kubelet.pod_resources import Held
from gismo_deviceplugin.kubelet.shares import Injection, Tenant
from gismo_deviceplugin.loading import NOT_LOADED, NOT_OPENED, PATIENCE_S, Looker

STORE = f"0a1b2c3d-0000-4000-8000-{os.getpid():012d}"  # of no other run's processes
SHARE = f"{STORE}_1"
HAS_IT = {"GISMO_SHARE": SHARE}
HELD = Held("gismo.io/rack1.team-a", SHARE, "team-a", "ray-head", "ray")
RAY, GISMO = "_raylet.so", "libgismo.so"
_MAPS = """
import mmap, sys
kept = []
for path in sys.argv[1:]:
    with open(path, "r+b") as file:
        kept.append(mmap.mmap(file.fileno(), 0))
print("mapped", flush=True)
sys.stdin.read()
"""


@dataclass
class Node:
    """Processes of it, and a clock."""

    folder: Path
    now: float = 0.0
    running: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.looker = Looker(clock=lambda: self.now)
        for name in (RAY, GISMO, STORE):
            (self.folder / name).write_bytes(bytes(4096))

    def run(
        self, environment: Mapping[str, str], *names: str, title: str = "python3", before: Sequence[str] = ()
    ) -> None:
        """A process that maps files of these names, begun with these words before."""
        files = [str(self.folder / name) for name in names]
        # Not through the environment's own launcher, which would run its interpreter under another title.
        python = os.path.realpath(sys.executable)
        command = [*before, python, "-c", _MAPS, *files]
        process = subprocess.Popen(
            command if before else [title, *command[1:]],
            executable=None if before else python,
            env={"PATH": os.environ["PATH"], **environment},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "mapped\n"

    def end(self) -> None:
        for process in self.running:
            process.communicate("")
        self.running.clear()

    def later(self, seconds: float = PATIENCE_S) -> list[str]:
        """The reasons that are given after this time."""
        self.now += seconds
        return [one.reason for one in self.looker.look([HELD])]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.end()


def test_ray_without_gismo_is_found_when_it_has_lasted(node: Node) -> None:
    node.run(HAS_IT)  # a shell
    assert node.later() == []
    assert node.later() == []
    node.run(HAS_IT, RAY)
    assert node.later() == []
    assert node.later(PATIENCE_S - 1) == []
    assert node.later(1) == [NOT_LOADED]
    (said,) = node.looker.look([HELD])
    assert (said.held, said.ray) == (HELD, str(node.folder))
    node.run(HAS_IT, RAY, title="ray::IDLE")
    node.later()
    assert node.looker.look([HELD]) == (said,)  # the same words, whoever comes and goes
    node.end()
    assert node.later() == []


def test_ray_with_gismo_is_well(node: Node) -> None:
    node.run(HAS_IT, RAY, GISMO)  # such as the dashboard, which opens no store
    node.run(HAS_IT, RAY, GISMO, title="ray::RuntimeEnvAgent")
    node.run(HAS_IT, RAY, GISMO, STORE, title="ray::IDLE")
    assert [node.later() for _ in range(4)] == [[]] * 4


def test_a_worker_that_does_not_open_the_store_is_found(node: Node) -> None:
    node.run(HAS_IT, RAY, GISMO, title="ray::IDLE")
    assert node.later() == []
    assert node.later() == [NOT_OPENED]
    node.run(HAS_IT, RAY, title="ray::IDLE")
    assert node.later() == [NOT_OPENED]
    assert node.later() == [NOT_LOADED]  # the graver of the two


@pytest.mark.parametrize("wish", [{"GISMO_DISABLE": "1"}, {"GISMO_STORE": "file:/dev/shm/my-own"}], ids=str)
def test_what_the_user_wants_is_not_found(node: Node, wish: dict[str, str]) -> None:
    node.run(HAS_IT | wish, RAY)
    node.run(HAS_IT | wish, RAY, GISMO, title="ray::IDLE")
    assert [node.later() for _ in range(3)] == [[]] * 3


def test_a_share_that_nobody_holds_is_not_looked_for(node: Node) -> None:
    node.run({"GISMO_SHARE": f"{STORE}_2"}, RAY)
    node.run({}, RAY)
    assert [node.later() for _ in range(3)] == [[]] * 3
    assert node.looker.look([]) == ()


@pytest.mark.root
def test_a_process_that_has_lost_its_environment_is_known_by_its_container(node: Node) -> None:
    """As Ray's workers, whose title lies where their environment was."""
    unshare = shutil.which("unshare")
    if os.geteuid() or unshare is None:
        pytest.skip("a mount namespace of one's own needs root and unshare")
    forgetful = 'exec 3<&0; env --unset=GISMO_SHARE "$@" <&3 & wait'
    node.run(HAS_IT, RAY, before=(unshare, "--mount", "sh", "-c", forgetful, "sh"))
    assert node.later() == []
    assert node.later() == [NOT_LOADED]


def test_what_is_said_names_what_to_do() -> None:
    tenant = Tenant("rack1", "team-a", STORE, 1, "/memory", False, "/state")
    unloaded = loading.Unloaded(HELD, NOT_LOADED, "/opt/venv/lib/python3.13/site-packages/ray")
    text = loading.message(tenant, unloaded)
    assert text.startswith(
        "container ray of pod team-a/ray-head runs Ray (of /opt/venv/lib/python3.13/site-packages/ray) without gismo_core"
    )
    assert "`runtimeInjection: PythonPath` in GismoPool rack1" in text
    for injection, word in ((Injection.PYTHON_PATH, "/opt/gismo/boot come first"), (Injection.OFF, "gismo-cxl")):
        there = Tenant("rack1", "team-a", STORE, 1, "/memory", False, "/state", injection=injection)
        assert word in loading.message(there, unloaded)
    assert "store format" in loading.message(tenant, loading.Unloaded(HELD, NOT_OPENED, "/ray"))
