"""The scenarios by name. A scenario is a function of a Run and of who is to be killed ("" for nobody)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ray_scenarios.run import Run

Function = Callable[[Run, str], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One entry."""

    name: str
    about: str
    function: Function
    kills: tuple[str, ...]  # "" for the run in which nobody is killed
    kind: str  # of the cluster, see cluster.KINDS
    long: tuple[str, ...]  # those of `kills` that only the long runs have


_scenarios: dict[str, Scenario] = {}


def scenario(
    *kills: str, alone: bool = True, kind: str = "plain", long: tuple[str, ...] = ()
) -> Callable[[Function], Function]:
    """Register a function under its name. alone: it also runs without anybody being killed."""

    def register(function: Function) -> Function:
        name = function.__name__
        about = (function.__doc__ or "").strip().splitlines()[0]
        _scenarios[name] = Scenario(name, about, function, (*([""] if alone else []), *kills), kind, long)
        return function

    return register


def scenarios() -> dict[str, Scenario]:
    """All of them, by name."""
    from ray_scenarios import deaths, drivers, flight, nodes, pressure, values  # noqa: F401 - they register themselves

    return dict(_scenarios)
