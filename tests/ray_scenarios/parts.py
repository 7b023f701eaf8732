"""What runs inside Ray's workers: one actor class and some tasks, which the scenarios put together."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from gismo_core import Handle, Store
from gismo_core.errors import StoreFull
from ray_scenarios import pattern


def in_pool(value: Any) -> bool:
    """Does this array lie in the store, rather than in Ray's own?"""
    from gismo_core.ray import session

    store = session.open_store()
    return store is not None and isinstance(value, np.ndarray) and store.find(value.data) is not None


def await_lease(timeout_s: float = 30.0) -> None:
    """Until this worker has tokens for returns: without any they take Ray's own way, and would test nothing."""
    from gismo_core.ray import session

    end = time.monotonic() + timeout_s
    while (here := session.current()) is not None and not here._leased.tokens:
        here.wake()
        if time.monotonic() > end:
            raise TimeoutError("the keeper lent no tokens")
        time.sleep(0.005)


def say(path: str, text: str = "") -> None:
    """Make a file with this text, whole or not at all."""
    part = Path(f"{path}.{os.getpid()}.part")
    part.write_text(text)
    part.rename(path)


def await_file(path: str, timeout_s: float = 60.0) -> str:
    """The text of a file that another process will make."""
    end = time.monotonic() + timeout_s
    while not os.path.exists(path):
        if time.monotonic() > end:
            raise TimeoutError(f"nobody made {path}")
        time.sleep(0.005)
    return Path(path).read_text()


def fill(store: Store, leave_bytes: int) -> list[Handle]:
    """Put zeroes until no more than that much room is left, or none of a piece's size."""
    made = []
    for piece in (16 << 20, 1 << 20, 128 << 10):
        while store.stats().free_bytes - piece >= leave_bytes:
            try:
                made.append(store.put(bytes(piece)))
            except StoreFull:
                break
    return made


class Part:
    """An actor that makes, keeps, passes on and checks arrays. Made with ray.remote where it is used."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}
        self._refs: dict[str, Any] = {}

    def ready(self) -> int:
        """Its process, once it has tokens."""
        await_lease()
        return os.getpid()

    def make(self, seed: int, nbytes: int) -> Any:
        """Return an array."""
        return pattern.array(seed, nbytes)

    def make_many(self, seeds: list[int], nbytes: int) -> list[Any]:
        """For num_returns: an array for each seed."""
        await_lease()
        return [pattern.array(seed, nbytes) for seed in seeds]

    def make_and_end(self, seed: int, nbytes: int) -> Any:
        """Return an array, and end by itself soon after the reply."""
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()
        return pattern.array(seed, nbytes)

    def stream(self, seeds: list[int], nbytes: int, pause_s: float = 0.0, die_at: int = -1, mark: str = "") -> Any:
        """For num_returns="streaming"; dies by SIGKILL before item `die_at`, the first time only (`mark`)."""
        for index, seed in enumerate(seeds):
            if index == die_at and not os.path.exists(mark):
                say(mark)
                os.kill(os.getpid(), signal.SIGKILL)
            await_lease()
            yield pattern.array(seed, nbytes)
            time.sleep(pause_s)

    def put(self, seed: int, nbytes: int) -> list[Any]:
        """[ref] of an array that this process owns."""
        import ray

        return [ray.put(pattern.array(seed, nbytes))]

    def put_nested(self, seed: int, nbytes: int) -> Any:
        """A reference to a list with a reference to an array."""
        import ray

        return [ray.put([ray.put(pattern.array(seed, nbytes))])]

    def keep(self, key: str, value: Any) -> bool:
        """Hold an array, which came by reference or by value; whether it lies in the store."""
        self._kept[key] = value
        return in_pool(value)

    def keep_slice(self, key: str, value: Any, start: int, stop: int) -> None:
        """Hold words of an array."""
        self._kept[key] = value[start:stop]

    def keep_ref(self, key: str, refs: list[Any]) -> None:
        """Borrow references."""
        self._refs[key] = refs

    def load_ref(self, key: str) -> None:
        """Get what was borrowed and hold it; lets the references go."""
        import ray

        [ref] = self._refs.pop(key)
        self._kept[key] = ray.get(ref)

    def fault(self, key: str, seed: int, nbytes: int, start: int = 0) -> str | None:
        """What is wrong with a held array."""
        return pattern.fault(self._kept[key], seed, nbytes, start)

    def fault_of_refs(self, key: str, seeds: list[int], nbytes: int) -> list[str]:
        """What is wrong with arrays that are borrowed or were made with submit()."""
        import ray

        found = [pattern.fault(ray.get(ref), seed, nbytes) for ref, seed in zip(self._refs[key], seeds, strict=True)]
        return [text for text in found if text]

    def check(self, value: Any, seed: int, nbytes: int, start: int = 0) -> str | None:
        """What is wrong with an argument."""
        return pattern.fault(value, seed, nbytes, start)

    def check_slowly(self, value: Any, seed: int, nbytes: int, pause_s: float, mark: str) -> str | None:
        """As check, but says that it holds the array, and waits."""
        say(mark, str(os.getpid()))
        time.sleep(pause_s)
        return pattern.fault(value, seed, nbytes)

    def pass_on(self, value: Any, start: int, stop: int) -> Any:
        """Return words of an argument: no copy, the same extent."""
        return value[start:stop]

    def give(self, key: str) -> Any:
        """Return what is held."""
        return self._kept[key]

    def fill(self, leave_bytes: int) -> list[Handle]:
        """Take the room of the pool, as this host can."""
        from gismo_core.ray import session

        store = session.open_store()
        return [] if store is None else fill(store, leave_bytes)

    def drop(self, *keys: str) -> None:
        """Let go of these, or of everything."""
        for key in keys or [*self._kept, *self._refs]:
            self._kept.pop(key, None)
            self._refs.pop(key, None)
        gc.collect()

    def submit(
        self, key: str, seeds: list[int], nbytes: int, node: str, marks: str, num_cpus: float = 1, hold: bool = False
    ) -> None:
        """Own the returns of tasks on another node: each says its process in the file `marks`-seed."""
        import ray

        task = ray.remote(make).options(num_cpus=num_cpus, resources={node: 0.001})
        self._refs[key] = [task.remote(seed, nbytes, f"{marks}-{seed}", 0.0, hold) for seed in seeds]

    def submit_stream(self, key: str, seeds: list[int], nbytes: int, node: str, marks: str) -> None:
        """Own a streaming generator on another node."""
        import ray

        task = ray.remote(stream).options(num_returns="streaming", num_cpus=1, resources={node: 0.001})
        self._refs[key] = [task.remote(seeds, nbytes, marks)]

    def fault_of_stream(self, key: str, seeds: list[int], nbytes: int) -> list[str]:
        """What is wrong with the items of a generator begun with submit_stream()."""
        import ray

        [generator] = self._refs.pop(key)
        found = [pattern.fault(ray.get(ref), seed, nbytes) for ref, seed in zip(generator, seeds, strict=True)]
        return [text for text in found if text]

    def unready(self, key: str) -> int:
        """How many of the refs are still on their way."""
        import ray

        refs = self._refs[key]
        return len(ray.wait(refs, num_returns=len(refs), timeout=0)[1])

    def hand_over(self, key: str, other: Any, other_key: str) -> None:
        """Pass the array behind a reference of ours to an actor, and let the reference go."""
        import ray

        [ref] = self._refs.pop(key)
        done = other.keep.remote(other_key, ref)
        del ref
        ray.get(done)

    def hold_gil(self, seconds: int, begun: str, over: str) -> None:
        """Sleep in C without letting go of the GIL."""
        say(begun)
        ctypes.PyDLL(None).sleep(seconds)
        say(over)

    def watch(self, key: str, seed: int, nbytes: int, stop: str, verdict: str) -> None:
        """Check a held array again and again in a thread of its own until the file `stop` is there."""

        def look() -> None:
            found = None
            while found is None and not os.path.exists(stop):
                found = pattern.fault(self._kept[key], seed, nbytes)
                time.sleep(0.01)
            say(verdict, found or pattern.fault(self._kept[key], seed, nbytes) or "right")

        threading.Thread(target=look, daemon=True).start()

    def fork_and_drop(self, value: Any, seed: int, nbytes: int) -> str | None:
        """A child drops its copy of the array and ends; what is wrong with ours then."""
        child = os.fork()
        if child == 0:
            del value
            gc.collect()
            os._exit(0)
        os.waitpid(child, 0)
        return pattern.fault(value, seed, nbytes)

    def fork_and_keep(self, key: str, seed: int, nbytes: int, go: str, verdict: str) -> int:
        """A child keeps the array, and looks at it when the file `go` is there; its process."""
        child = os.fork()
        if child == 0:
            await_file(go)
            say(verdict, pattern.fault(self._kept[key], seed, nbytes) or "right")
            os._exit(0)
        return child


_in_hand: list[Any] = []


def _hold_tokens() -> None:
    """This process keeps the tokens of what it returns: as if it were killed in the instant before it lets go of them."""
    from gismo_core.ray import session

    here = session.current()
    if here is not None:
        lend = here.leased_token

        def leased_token() -> Any:
            _in_hand.append(lend())
            return _in_hand[-1]

        setattr(here, "leased_token", leased_token)  # noqa: B010 - a method


def make(seed: int, nbytes: int, mark: str = "", pause_s: float = 0.0, hold: bool = False) -> Any:
    """A task: return an array after a while, having said which process does. hold: it is to be killed, see above.

    Not if it is done again, since it was killed before its reply had left: nobody will kill it then.
    """
    await_lease()
    if hold and not os.path.exists(mark):
        _hold_tokens()
    if mark:
        say(mark, str(os.getpid()))
    time.sleep(pause_s)
    return pattern.array(seed, nbytes)


def stream(seeds: list[int], nbytes: int, mark: str = "") -> Any:
    """A task: yield arrays, having said which process does."""
    await_lease()
    if mark:
        say(mark, str(os.getpid()))
    for seed in seeds:
        yield pattern.array(seed, nbytes)


def check(value: Any, seed: int, nbytes: int, start: int = 0) -> str | None:
    """A task: what is wrong with an argument."""
    return pattern.fault(value, seed, nbytes, start)


def check_refs(refs: list[Any], seeds: list[int], nbytes: int) -> str | None:
    """A task: what is wrong with arrays whose references came."""
    import ray

    found = [pattern.fault(ray.get(ref), seed, nbytes) for ref, seed in zip(refs, seeds, strict=True)]
    return next((text for text in found if text), None)


def die_once(value: Any, seed: int, nbytes: int, mark: str) -> Any:
    """A task: check the argument, put another array, and die the first time; return a slice the second time."""
    import ray

    await_lease()
    wrong = pattern.fault(value, seed, nbytes)
    if not os.path.exists(mark):
        left_over = ray.put(pattern.array(seed + 1, nbytes))
        say(mark, str(os.getpid()))
        os.kill(os.getpid(), signal.SIGKILL)
        del left_over
    return wrong or value[: len(value) // 2]


def shift(value: Any, seed: int, nbytes: int, mark: str) -> Any:
    """A task: check the argument, count the run in a file, and return another array: that of seed + pattern.SHIFT."""
    with open(mark, "a") as file:
        file.write(f"{os.getpid()}\n")
    return pattern.fault(value, seed, nbytes) or pattern.shifted(value)
