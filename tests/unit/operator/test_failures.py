"""The operator's real code against an API server of which every call may fail, be slow, conflict, or be its last.

Over any history of specs, nodes, agents, users and deaths: what must never be never is (failing_cluster checks every change of every
object), and after the faults have stopped it converges within a bounded number of looks, and rests.
"""

from __future__ import annotations

from typing import Any

import failing_cluster as cluster
import pytest
from failing_cluster import NAMES, NODES
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

entries = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from([64, 64, 64, 32, 128]),
        st.sampled_from(["Delete", "Retain"]),
        st.sets(st.sampled_from(["x", "y"])).map(lambda found: tuple(sorted(found))),
    ),
    max_size=3,
    unique_by=lambda one: one[0],
).map(tuple)
edits = st.builds(cluster.Edit, entries)
agents = st.builds(cluster.Agent, st.sampled_from(NODES), st.sampled_from(["", "", "", "", "ranges", "nodes", "mute"]))
acts: Any = st.one_of(
    edits,
    agents,
    agents,
    st.builds(cluster.DeletePool),
    st.builds(cluster.DeleteRange, st.sampled_from(NAMES)),
    st.builds(cluster.Force, st.sets(st.sampled_from(NAMES)).map(lambda found: tuple(sorted(found)))),
    st.builds(cluster.ForceRange, st.sampled_from(NAMES)),
    st.builds(cluster.AgentDies, st.sampled_from(NODES)),
    st.builds(
        cluster.Node, st.sampled_from(NODES), st.sampled_from(["ready", "ready", "notready", "gone", "reboots", "off"])
    ),
    st.builds(cluster.Use, st.sampled_from(NODES), st.sampled_from(NAMES), st.booleans()),
    st.builds(cluster.Restart, st.sampled_from(NODES)),
    st.builds(cluster.Wait, st.sampled_from([1.0, 11.0])),
    st.builds(cluster.Arrive),
)
meanwhile = st.one_of(acts, st.builds(cluster.Takeover, st.integers(0, 3)))
# Four calls read, and what follows writes.
CALLS = (0, 1, 2, 3, *range(4, 9), *range(4, 11))
fault: Any = st.one_of(
    st.builds(cluster.NotDone, st.sampled_from([0, 429, 500, 503])),
    st.builds(cluster.Unknown, st.sampled_from([0, 500, 504])),
    st.builds(cluster.Late),
    st.builds(cluster.Dies, st.booleans()),
    st.builds(cluster.Slow, st.lists(meanwhile, min_size=1, max_size=4).map(tuple)),
    st.builds(cluster.Slow, st.lists(meanwhile, min_size=1, max_size=4).map(tuple)),
)
faults = st.dictionaries(st.sampled_from(CALLS), fault, max_size=2).map(
    lambda found: tuple(found.get(number) for number in range(max(found, default=-1) + 1))
)


class Failures(RuleBasedStateMachine):
    """Rules are what happens; that nothing happens that must not is checked in the world."""

    def __init__(self) -> None:
        super().__init__()
        self.world = cluster.World()

    @initialize(edit=edits, looks=st.integers(0, 3))
    def begin(self, edit: Any, looks: int) -> None:
        edit.do(self.world)
        self.go_on(looks)

    @rule(acts=st.lists(acts, max_size=3), faults=faults)
    def act_and_look(self, acts: list[Any], faults: tuple[Any, ...]) -> None:
        for act in acts:
            act.do(self.world)
        self.world.leader.look(faults)

    @rule(edit=edits, faults=faults)
    def edit_and_look(self, edit: Any, faults: tuple[Any, ...]) -> None:
        edit.do(self.world)
        self.world.leader.look(faults)

    @rule(node=st.sampled_from(NODES), begins=st.booleans(), name=st.sampled_from(NAMES))
    def use(self, node: str, begins: bool, name: str) -> None:
        self.world.use(node, name, begins)

    @rule(rounds=st.integers(1, 3))
    def go_on(self, rounds: int) -> None:
        """All is well for a while."""
        for _ in range(rounds):
            self.world.leader.look()
            for name in NODES:
                self.world.agent(name)
            self.world.now += 6.0

    @rule()
    def settle(self) -> None:
        self.world.settle()

    def teardown(self) -> None:
        if not self.world.is_wrong:
            self.world.settle()


USUAL = settings(deadline=None, max_examples=60, stateful_step_count=20, suppress_health_check=[HealthCheck.too_slow])
MANY = settings(USUAL, max_examples=20_000, stateful_step_count=30)


def test_over_any_history_it_does_no_harm_and_converges() -> None:
    run_state_machine_as_test(Failures, settings=USUAL)


@pytest.mark.long
def test_over_very_many_histories() -> None:
    run_state_machine_as_test(Failures, settings=MANY)
