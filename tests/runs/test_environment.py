"""The environment that a record contains, and what it must not contain."""

from __future__ import annotations

import getpass
import json
import platform
import re
import socket
import subprocess
from pathlib import Path

import pytest
import torch

from sadp_bench.core.cores import available_threads
from sadp_bench.core.errors import BadInput
from sadp_bench.records.comparison import TIMED_TOGETHER
from sadp_bench.runs import environment
from sadp_bench.runs.environment import choose_device, describe, keep_freed_memory
from tests.paths import ROOT

CPU = torch.device("cpu")
VERSIONS = "sadp_bench commit dirty python torch torchvision spikingjelly numpy"
KEYS = set(f"{VERSIONS} device processor threads cores jobs kernel bf16".split())


def test_it_names_versions_machine_and_share_of_it() -> None:
    result = describe(CPU, threads=3, jobs=2)
    assert set(result) == KEYS and set(TIMED_TOGETHER) <= KEYS
    assert (result["threads"], result["jobs"], result["device"], result["kernel"]) == (3, 2, "cpu", "sadp-bench-cpu")
    assert result["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert result["python"] == platform.python_version()
    assert result["processor"] and isinstance(result["bf16"], bool)
    assert json.loads(json.dumps(result)) == result


def test_it_names_no_host_no_user_and_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "ada-lovelace")
    monkeypatch.setenv("LOGNAME", "ada-lovelace")
    monkeypatch.setattr(socket, "gethostname", lambda: "engine-room")
    monkeypatch.setattr(platform, "node", lambda: "engine-room")
    text = json.dumps(describe(CPU, threads=1))
    real = [Path("/proc/sys/kernel/hostname").read_text().strip()] if Path("/proc/sys/kernel/hostname").exists() else []
    for name in ["ada-lovelace", "engine-room", getpass.getuser(), str(Path.home()), *real]:
        assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text), name
    assert str(ROOT) not in text


def test_a_device_that_is_none_is_refused() -> None:
    for name in ("gpu", "tpu", "meta", "", "cuda:x", "cpu,cuda"):
        with pytest.raises(BadInput, match=f"--device is auto, cpu, cuda, cuda:N or mps, not '{name}'"):
            choose_device(name)
            pytest.fail(f"{name} is not refused")


def test_a_gpu_that_is_not_there_is_refused_and_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match="--device cuda: 0 CUDA devices are visible; use --device cpu"):
        choose_device("cuda")
    assert choose_device("auto") == CPU == choose_device("cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda" and choose_device("cuda:1").index == 1
    with pytest.raises(BadInput, match="2 CUDA devices"):
        choose_device("cuda:2")


def test_a_record_of_a_gpu_alone_contains_what_is_rounded_to_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.tf32() == "convolutions"  # torch's default
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert environment.tf32() == "convolutions and products"
    for name, found in (("get_device_name", "an H200"), ("is_bf16_supported", True)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, found=found, **__: found)
    monkeypatch.setattr(environment, "implementation", lambda device, kernel: "triton")
    assert describe(torch.device("cuda"), threads=1)["tf32"] == "convolutions and products"
    assert "tf32" not in describe(CPU, threads=1)


def git(root: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *settings, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def test_the_commit_is_that_of_the_packages_checkout_and_dirty_reports_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "sadp_bench" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr(environment.sadp_bench, "__file__", str(package))
    commit = environment._commit.__wrapped__  # a process runs git once
    assert commit() == (None, None)  # installed
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "HEAD").strip()
    (tmp_path / "notes").write_text("untracked files don't count")
    assert commit() == (head, False)
    package.write_text("changed = True")
    assert commit() == (head, True)


def test_at_least_one_thread_is_available_and_holding_memory_is_harmless() -> None:
    assert available_threads() >= 1
    keep_freed_memory()
    keep_freed_memory(False)
