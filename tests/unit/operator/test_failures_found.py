"""What failing API servers have found in the operator, each as the shortest history that shows it."""

from __future__ import annotations

from failing_cluster import Agent, DeletePool, Edit, Look, Node, NotDone, Slow, Takeover, Use, Wait, replay

ONE = ("one", 64, "Delete", ())
TWO = ("two", 64, "Delete", ())
AGENTS = (Agent("a"), Agent("b"), Agent("a"), Agent("b"))
UP = (Edit((ONE,)), (), (), *AGENTS, (), ())
ZEROED = ((), *AGENTS, Wait(11.0), *AGENTS)  # after it was taken out of the list; the next look frees it


def test_a_new_range_is_not_made_over_one_that_is_still_there() -> None:
    replay(*UP, Edit(()), *ZEROED, Edit((("two", 128, "Delete", ()),)), ()).settle()


def test_who_becomes_the_writer_has_not_zeroed_what_it_released_before() -> None:
    replay(*UP, Edit(()), (), Agent("b"), (), Wait(11.0), (), Node("a", "off"), (), (), ()).settle()


def test_when_all_are_dead_nobody_has_zeroed() -> None:
    dead = (Node("a", "off"), Node("b", "off"))
    replay(*UP, Edit(()), (), Agent("b"), (), Wait(11.0), (), *dead, (), (), ()).settle()


def test_an_old_leader_does_not_delete_the_next_range_of_that_name() -> None:
    slow = Slow((Edit((ONE,)), Takeover(1), Wait(11.0), Look(4), *AGENTS, Look(2)))
    for number in range(4, 10):  # in the call that deletes, wherever it stands
        replay(*UP, Edit(()), *ZEROED, (*[None] * number, slow)).settle()


def test_there_are_never_two_writers() -> None:
    to_b = (Node("a", "off"), (), *AGENTS, Node("a", "ready"), *AGENTS, (), *AGENTS, ())
    for number in range(4, 8):
        meets = (*[None] * number, NotDone())  # between the one that is not any more and the one that is
        replay(*UP, *to_b, Node("b", "off"), meets).settle()


def test_a_pool_that_goes_under_a_look() -> None:
    replay(*UP, (*[None] * 4, Slow((DeletePool(),)))).settle()


def test_who_may_no_longer_is_taken_out() -> None:
    world = replay(Edit((("one", 64, "Delete", ("x",)),)), (), (), Edit((("one", 64, "Delete", ("y",)),)), ())
    world.settle()
    assert world.ranges()["one"]["spec"]["access"] == {"kubernetesNamespaces": ["y"]}


def test_agents_are_told_of_a_range_whose_maker_was_cut_off() -> None:
    for number in range(5, 9):
        replay(*UP, Edit((ONE, TWO)), (*[None] * number, NotDone())).settle()


def test_what_a_dead_node_used_is_void_and_a_pool_that_is_gone_has_a_writer_as_long_as_a_node_lives() -> None:
    replay(*UP, Use("a", "one", True), *AGENTS, DeletePool(), (), Node("a", "off"), ()).settle()
