"""One run of a scenario: makes the arrays, starts the actors, reads and judges."""

from __future__ import annotations

import gc
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from gismo_core.ray import keeping
from ray_scenarios import holders, parts, pattern
from ray_scenarios.cluster import TwoNodes
from ray_scenarios.outcome import Outcome
from ray_scenarios.talk import Failed, Peer, eventually

KiB = 1024
_PATIENCE_S = 60.0


class Proxy:
    """An actor of class Part: calls wait for their result; `start` does not."""

    def __init__(self, ray: Any, handle: Any, node: int) -> None:
        self._ray = ray
        self.handle = handle
        self.node = node
        self.pid: int = ray.get(handle.ready.remote(), timeout=_PATIENCE_S)

    def call(self, method: str, *arguments: Any) -> Any:
        """Its result."""
        return self._ray.get(self.start(method, *arguments), timeout=_PATIENCE_S)

    def start(self, method: str, *arguments: Any, **options: Any) -> Any:
        """The reference of its result; options: num_returns."""
        bound = getattr(self.handle, method)
        return (bound.options(**options) if options else bound).remote(*arguments)


class Run:
    """What a scenario works with."""

    def __init__(self, cluster: TwoNodes, outcome: Outcome, idle: dict[int, list[Proxy]]) -> None:
        import ray

        self.ray = ray
        outcome.ray_version = ray.__version__
        self.cluster = cluster
        self.patience_s = _PATIENCE_S  # for what must happen
        self.outcome = outcome
        self.random = random.Random(outcome.seed)
        self.folder = cluster.folder / f"run-{outcome.scenario}-{outcome.seed}"
        self.folder.mkdir(exist_ok=True)
        self._seeds = itertools.count(self.random.randrange(1 << 60) * 8)
        self._files = itertools.count()
        self._idle = idle
        self._used: list[Proxy] = []
        self._peers: list[Peer] = []
        self._ballast: list[Any] = []

    # ---- values ----------------------------------------------------------------------------------

    def seed(self) -> int:
        """One that no other array has."""
        return next(self._seeds)

    def seeds(self, count: int) -> list[int]:
        """Several of them."""
        return [self.seed() for _ in range(count)]

    def size(self, most: int = 2048 * KiB) -> int:
        """Bytes of an array that goes to the store: 128 KiB to `most`, odd in pages."""
        return self.random.randrange(128 * KiB, most, 8)

    def array(self, seed: int, nbytes: int) -> Any:
        """The array of a seed."""
        return pattern.array(seed, nbytes)

    def path(self, stem: str) -> str:
        """Of a file that is not there yet."""
        return str(self.folder / f"{stem}-{next(self._files)}")

    # ---- judging ---------------------------------------------------------------------------------

    def judge(self, found: str | list[str] | None, what: str) -> None:
        """Take what a check has found: a text is a loss."""
        for text in [found] if isinstance(found, str) else found or []:
            self.outcome.lost.append(f"{what}: {text}")

    def check(self, value: Any, seed: int, nbytes: int, what: str, start: int = 0) -> None:
        """A value must be right."""
        self.judge(pattern.fault(value, seed, nbytes, start), what)

    def get(self, ref: Any, what: str, may_fail: tuple[type[BaseException], ...] = ()) -> Any:
        """ray.get; None where it fails, which is a loss unless stock Ray would raise that too."""
        try:
            return self.ray.get(ref, timeout=_PATIENCE_S)
        except self.ray.exceptions.GetTimeoutError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever comes instead of the value is the finding
            if type(error) not in may_fail:
                self.outcome.lost.append(f"{what}: {type(error).__name__}: {str(error)[-600:]}")
            return None

    def read(
        self,
        ref: Any,
        seed: int,
        nbytes: int,
        what: str,
        start: int = 0,
        may_fail: tuple[type[BaseException], ...] = (),
    ) -> None:
        """What a reference stands for must be right."""
        value = self.get(ref, what, may_fail)
        if value is not None:
            self.check(value, seed, nbytes, what, start)

    def verdict(self, path: str, what: str) -> None:
        """A process that Ray cannot be asked about says "right" in a file, or what was wrong."""
        text = parts.await_file(path)
        self.judge(None if text == "right" else text, what)

    def must(self, condition: Any, what: str) -> None:
        """Otherwise the run proves nothing."""
        if not condition:
            raise Failed(f"the run proves nothing: {what}")

    def keep(self, actor: Proxy, values: list[Any]) -> None:
        """Have an actor hold these, under "0", "1" and so on; they must lie in the store."""
        lie_there = [actor.call("keep", f"{i}", value) for i, value in enumerate(values)]
        self.must(all(lie_there), "values went through Ray's own store")

    # ---- the store -------------------------------------------------------------------------------

    def records(self, at_least: int) -> None:
        """That many values are in the store: they did not take Ray's own way."""

        def enough() -> bool:
            count = self.cluster.records()
            self.outcome.records = max(self.outcome.records, count)
            return count >= at_least

        eventually(enough, f"{at_least} records in the store", self.patience_s)

    def records_fall_to(self, at_most: int, what: str) -> float:
        """Wait until no more than that many are left; how long it took."""
        gc.collect()  # an exception that was caught holds references in a cycle
        begin = time.monotonic()
        try:
            eventually(lambda: self.cluster.records() <= at_most, what, self.patience_s)
        except Failed:
            self.outcome.leaked = self.cluster.records() - at_most
            self._explain()
            raise
        return time.monotonic() - begin

    def settle(self, complete: bool = True) -> None:
        """Let the keeper free whatever it thinks it may: a pair of scans, whatever its budget says."""
        gc.collect()
        before = self._status()["scans"]
        self.keeper().full.remote()
        if complete:
            eventually(lambda: self._settled(before), "a pair of complete scans", _PATIENCE_S)
        else:
            time.sleep(0.5)

    def _settled(self, before: int) -> bool:
        status = self._status()
        if status["incomplete"] is None and status["scans"] >= before + 3:  # one may have been under way
            return True
        self.keeper().full.remote()
        time.sleep(0.02)
        return self.cluster.records() == 0

    def keeper(self) -> Any:
        """Its handle."""
        return self.ray.get_actor(keeping.name_of(self.cluster.store.info.store_uuid), namespace=keeping.NAMESPACE)

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = self._of_keeper(lambda keeper: keeper.status.remote())
        return status

    def near(self) -> int:
        """The node that the keeper is on (not always the first: a young node may know no other yet)."""
        return self.cluster.number(self._status()["node"])

    def keeper_pid(self) -> int:
        """The keeper's process."""
        pid: int = self.in_keeper(_pid)
        return pid

    def in_keeper(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run function(keeper, *arguments) in its process."""
        return self._of_keeper(lambda keeper: keeper.__ray_call__.remote(function, *arguments))

    def _of_keeper(self, call: Callable[[Any], Any]) -> Any:
        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self.ray.get(call(self.keeper()), timeout=_PATIENCE_S)
            except (ValueError, self.ray.exceptions.ActorUnavailableError, self.ray.exceptions.ActorDiedError):
                if time.monotonic() > end:  # else it is being made, or restarted
                    raise
                time.sleep(0.1)

    def fill(self, leave_bytes: int, part: Proxy | None = None) -> None:
        """Take the room of the pool until about that much is left; given back at the end of the run.

        part: it takes what is left to its host, too: a host does not get at the arenas of another.
        """
        self._ballast += parts.fill(self.cluster.store, leave_bytes)
        if part is not None:
            self._ballast += part.call("fill", leave_bytes)

    def _explain(self) -> None:
        self.outcome.notes.append(str(self._status()))
        self.outcome.notes += holders.explain(self.ray, self.cluster.store)

    # ---- processes -------------------------------------------------------------------------------

    def part(self, node: int, **options: Any) -> Proxy:
        """An actor on that node; taken over from an earlier run where that is possible."""
        if not options and self._idle[node]:
            proxy = self._idle[node].pop()
        else:
            made = self.ray.remote(parts.Part).options(
                num_cpus=0, resources={f"node{node}": 0.001}, **({"max_concurrency": 1} | options)
            )
            proxy = Proxy(self.ray, made.remote(), node if not options else -1)
        self._used.append(proxy)
        return proxy

    def task(self, function: Callable[..., Any], node: int | None = None, **options: Any) -> Any:
        """A remote function, on that node or anywhere."""
        place = {} if node is None else {"resources": {f"node{node}": 0.001}}
        return self.ray.remote(**({"num_cpus": 1} | place | options))(function)

    def kill(self, process: Proxy | int) -> None:
        """SIGKILL."""
        os.kill(process.pid if isinstance(process, Proxy) else process, signal.SIGKILL)
        if isinstance(process, Proxy):
            process.node = -1

    def await_death(self, proxy: Proxy) -> None:
        """Until Ray knows that an actor has died."""

        def dead() -> bool:
            try:
                self.ray.get(proxy.handle.ready.remote(), timeout=1)
            except self.ray.exceptions.GetTimeoutError:
                return False
            except self.ray.exceptions.RayActorError:
                return True
            return False

        eventually(dead, "Ray sees that an actor has died", _PATIENCE_S)

    def driver(self, address: str | None = None, **env: str) -> Peer:
        """Another driver: of this cluster, or with address "local" of one of its own. See driver.py for its methods."""
        log = self.folder / f"driver-{next(self._files)}.log"
        peer = Peer("ray_scenarios.driver", address or self.cluster.address, env=os.environ | env, log=log)
        self._peers.append(peer)
        return peer

    # ---- the end ---------------------------------------------------------------------------------

    def finish(self) -> None:
        """All references are gone; so must be all records."""
        for peer in self._peers:
            if peer.process.poll() is None:
                peer.end()
        self._put_away()
        gc.collect()
        begin = time.monotonic()
        while (left := self.cluster.records()) and time.monotonic() - begin < self.patience_s:
            time.sleep(0.01)
        self.outcome.leaked = left
        if left:
            self._explain()
        self.outcome.freed_s = round(time.monotonic() - begin, 3)
        self.let_go_of_ballast()

    def abandon(self) -> None:
        """The run broke: let go of whatever it had."""
        for peer in self._peers:
            if peer.process.poll() is None:
                peer.kill()
        for proxy in self._used:
            self.ray.kill(proxy.handle)
        self._used.clear()
        self.let_go_of_ballast()
        gc.collect()

    def let_go_of_ballast(self) -> None:
        """What fill() took."""
        while self._ballast:
            self.cluster.store.delete(self._ballast.pop())

    def _put_away(self) -> None:
        alive = [proxy for proxy in self._used if proxy.node >= 0]
        self.ray.get([proxy.handle.drop.remote() for proxy in alive], timeout=_PATIENCE_S)
        for proxy in alive:
            self._idle[proxy.node].append(proxy)
        for proxy in self._used:
            if proxy.node < 0:
                self.ray.kill(proxy.handle)
        self._used.clear()

    def lose_node(self, node: int) -> None:
        """The actors there are no more."""
        for proxy in [*self._used, *self._idle[node]]:
            if proxy.node == node:
                proxy.node = -1
        self._idle[node].clear()


def _pid(_: Any) -> int:
    return os.getpid()


def all_done(ray: Any, refs: Iterable[Any]) -> None:
    """Wait until all of these are ready, without getting them."""
    refs = list(refs)
    ready, _ = ray.wait(refs, num_returns=len(refs), timeout=_PATIENCE_S, fetch_local=False)
    if len(ready) < len(refs):
        raise Failed(f"{len(refs) - len(ready)} of {len(refs)} tasks were not done within {_PATIENCE_S} s")


def unlink(path: str) -> None:
    """Remove a file if it is there."""
    Path(path).unlink(missing_ok=True)
