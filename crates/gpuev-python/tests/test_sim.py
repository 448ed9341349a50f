"""The simulated machine as users have it, and the package itself."""

import subprocess
import sys

import pytest

import gpuev
import gpuev.sim


def test_a_context_manager_is_what_is_looked_at():
    with gpuev.sim.Machine(gpus=2) as outer:
        assert len(gpuev.list_gpus()) == 2
        with gpuev.sim.Machine(gpus=3):
            assert len(gpuev.list_gpus()) == 3
        assert len(gpuev.list_gpus()) == 2
        with gpuev.watch() as watch:
            outer.emit("VMFAULT")
            assert next(watch).type is gpuev.EventType.VMFAULT


def test_its_files_go_with_it(tmp_path, monkeypatch):
    import gc
    import os

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with gpuev.sim.Machine() as machine:
        assert os.path.isdir(f"{machine.root}/sys/class/kfd")
        assert list(tmp_path.iterdir())
    del machine
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_a_story_is_told_as_it_was_played(gpu_machine):
    with gpuev.watch() as watch:
        gpu_machine.play("mixed", seed=7, rate=2_000, count=1_000)
        raised = gpu_machine.stop_playing(wait=True)
        seen = {}
        while (item := watch.wait(timeout=0.5)) is not None:
            assert isinstance(item, gpuev.Event)
            key = item.gpu.index, str(item.type)
            seen[key] = seen.get(key, 0) + 1
    assert sum(raised.values()) == 1_000
    assert seen == raised


def test_what_does_not_exist():
    with pytest.raises(gpuev.InvalidInputError, match="no kernel profile"):
        gpuev.sim.Machine(kernel="5.0")
    with gpuev.sim.Machine() as machine:
        with pytest.raises(gpuev.InvalidInputError):
            machine.emit("NOTHING")
        with pytest.raises(gpuev.InvalidInputError):
            machine.emit("VMFAULT", gpu=1)
        with pytest.raises(gpuev.InvalidInputError):
            machine.play("no such story")
        with pytest.raises(gpuev.InvalidInputError):
            machine.emit("GPU_PRE_RESET", cause="boredom")
    assert "mixed" in gpuev.sim.scenarios()


def test_the_pytest_plugin_works_for_others(tmp_path):
    (tmp_path / "test_mine.py").write_text("""
import gpuev, pytest

def test_one(gpu_machine):
    with gpuev.watch() as watch:
        gpu_machine.emit("VMFAULT")
        assert next(watch).pid == 4242

@pytest.mark.gpu_machine(gpus=4)
def test_more(gpu_machine):
    assert len(gpuev.list_gpus()) == 4
""")
    command = [sys.executable, "-m", "pytest", "-q", "--strict-markers", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert "2 passed" in ended.stdout, ended.stdout + ended.stderr


def test_every_name_of_the_package_is_there():
    for name in gpuev.__all__:
        assert getattr(gpuev, name) is not None
    assert set(gpuev.__all__) <= set(dir(gpuev))
    with pytest.raises(AttributeError):
        gpuev.nothing  # noqa: B018


def test_importing_is_light():
    """The heavy modules of the standard library are not loaded for the documented API."""
    program = "import sys, amdsmi; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    ).stdout.split()
    heavy = {"asyncio", "inspect", "typing", "json", "dataclasses", "ctypes", "datetime"}
    assert heavy & set(loaded) == set()
