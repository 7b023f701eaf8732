"""Ray's test files: where they lie, and which folder stands for the package `ray` beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Source:
    """One test file of Ray's, outside this tree."""

    path: Path
    package: Path  # the folder `ray` above it: …/python/ray

    @property
    def name(self) -> str:
        """As Ray's own tree has it: ray/tests/test_actor.py."""
        return str(self.path.relative_to(self.package.parent))


def find(path: Path) -> Source:
    """SystemExit with what is wrong, where that is no test file of Ray's."""
    path = path.resolve()
    if not path.is_file():
        raise SystemExit(
            f"{path}: no such file; name test files of a checkout of Ray, …/python/ray/tests/test_actor.py"
        )
    above = [folder for folder in path.parents if folder.name == "ray"]
    if not above or path.suffix != ".py":
        raise SystemExit(f"{path} is not in a package `ray`: keep Ray's own folders, …/python/ray/tests/test_actor.py")
    if not (path.parent / "conftest.py").is_file():
        raise SystemExit(f"{path.parent} has no conftest.py: Ray's tests need the one that lies beside them")
    # The innermost: a checkout may itself lie in a folder of that name.
    return Source(path, above[0])
