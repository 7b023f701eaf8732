"""Images as archives: what docker and containerd read in them, and what a key of the cache depends on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from e2e import archive


def test_an_archive_says_what_its_layer_is(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "program").write_text("runs")
    settings = archive.Settings(["/program"], user="1:1", names=["some/name:1", "other/name:2"])
    archive.write_tree(tmp_path / "tree", settings, tmp_path / "image.tar")

    with tarfile.open(tmp_path / "image.tar") as image:
        content = {member.name: image.extractfile(member) for member in image}
        files = {name: file.read() for name, file in content.items() if file}
    (listed,) = json.loads(files["manifest.json"])
    assert listed["RepoTags"] == ["some/name:1", "other/name:2"]
    config = json.loads(files[listed["Config"]])
    assert listed["Config"] == f"{hashlib.sha256(files[listed['Config']]).hexdigest()}.json"
    assert config["config"]["Entrypoint"] == ["/program"]
    assert config["config"]["User"] == "1:1"
    assert "WorkingDir" not in config["config"]
    (layer,) = listed["Layers"]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(files[layer]).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(files[layer])) as tree:
        assert "./program" in tree.getnames()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.tar", "tree"]


def test_images_upon_another_hold_only_what_they_add(tmp_path: Path) -> None:
    for name in ("base", "more"):
        (tmp_path / name / "opt").mkdir(parents=True)
        (tmp_path / name / "opt" / name).write_text(name)
    archive.write_tree(tmp_path / "base", archive.Settings(names=["some/base:1"]), tmp_path / "base.tar")
    archive.pack(tmp_path / "more", tmp_path / "layer", "./opt")
    images = [
        archive.Settings(environment=["PATH=/opt/bin", "X=a=b"], names=["some/one:1"]),
        archive.Settings(names=["some/two:1", "some/again:1"]),
    ]
    archive.write_upon(tmp_path / "base.tar", tmp_path / "layer", images, tmp_path / "more.tar")

    with tarfile.open(tmp_path / "base.tar") as image:
        layer = image.extractfile("layer.tar")
        assert layer is not None
        below = f"sha256:{hashlib.sha256(layer.read()).hexdigest()}"
    with tarfile.open(tmp_path / "more.tar") as image:
        content = {member.name: image.extractfile(member) for member in image}
        files = {name: file.read() for name, file in content.items() if file}
    for name, data in files.items():
        if name.startswith("blobs/sha256/"):
            assert name == f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"
    index = json.loads(files["index.json"])["manifests"]
    names = [one["annotations"]["io.containerd.image.name"] for one in index]
    assert names == ["docker.io/some/one:1", "docker.io/some/two:1", "docker.io/some/again:1"]
    environments = []
    for one in index:
        manifest = json.loads(files[f"blobs/{one['digest'].replace(':', '/')}"])
        first, second = manifest["layers"]
        assert first["digest"] == below
        assert f"blobs/{below.replace(':', '/')}" not in files
        assert len(files[f"blobs/{second['digest'].replace(':', '/')}"]) == second["size"]
        config = json.loads(files[f"blobs/{manifest['config']['digest'].replace(':', '/')}"])
        assert config["rootfs"]["diff_ids"] == [below, second["digest"]]
        environments.append(config["config"]["Env"])
    assert environments[0] == ["PATH=/opt/bin", "X=a=b"]
    assert environments[1] == environments[2] != environments[0]


def test_a_key_changes_with_each_part_and_with_content(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    keys = {archive.key("a", "b"), archive.key("ab"), archive.key("a", file)}
    file.write_text("two")
    keys.add(archive.key("a", file))
    assert len(keys) == 4


def test_what_is_kept_is_made_once_and_never_by_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made: list[str] = []

    def fails(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("on purpose")

    def works(path: Path) -> None:
        made.append(path.name)
        path.write_text("whole")

    with pytest.raises(RuntimeError, match="on purpose"):
        archive.kept("image.tar", fails)
    for _ in range(2):
        assert archive.kept("image.tar", works).read_text() == "whole"
    assert len(made) == 1


def test_what_nobody_used_for_long_goes_when_its_successor_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def make(path: Path) -> None:
        path.write_text("whole")

    made = [archive.kept(name, make) for name in ("image-ray-0.tar", "image-ray-1.tar", "image-ray-old-0.tar")]
    for path in (made[0], made[2]):
        os.utime(path, (0, 0))
    os.utime(archive.kept("image-ray-1.tar", make))
    archive.kept("image-ray-2.tar", make)
    assert sorted(path.name for path in made[0].parent.glob("*.tar")) == [
        *("image-ray-1.tar", "image-ray-2.tar", "image-ray-old-0.tar"),
    ]  # the old one of another kind stays
