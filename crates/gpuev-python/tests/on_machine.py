"""Python programs on a simulated machine, run by `gpuev sim run` on a terminal of their own, as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import gpuev_program
from truth import ALL, Raised, Truth

# Gives a program the terminal that its input is.
OWN_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Scene:
    """What happens on the machine while a program runs."""

    scenario: str = "mixed"
    # Of mixed, with 300 events on two GPUs, one that has all types.
    seed: int = 126
    gpus: int = 2
    count: int = 300
    rate: int = 500


def skip_unless_possible() -> None:
    """Skips where no program can be put on a simulated machine; where that must be possible, fails."""
    why = _impossible()
    if why is not None:
        assert "GPUEV_SIM_REQUIRE_ALL" not in os.environ, why
        pytest.skip(why)


def _impossible() -> str | None:
    program = gpuev_program()
    if program is None:
        return "needs the program gpuev: cargo build --package gpuev-cli, or GPUEV_PROGRAM=PATH"
    tried = subprocess.run([program, "sim", "run", "--", "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else tried.stderr


class OnMachine:
    """A program on a simulated machine. What happens there begins once it has subscribed to events."""

    def __init__(self, script: Path, folder: Path, scene: Scene, listeners: int) -> None:
        folder.mkdir()
        self.folder = folder
        self.scene = scene
        self.truth = Truth(folder / "truth.json")
        command = [gpuev_program(), "sim", "run", "--truth", str(self.truth.path)]
        command += ["--listeners", str(listeners)]
        for key in ("scenario", "seed", "gpus", "count", "rate"):
            command += [f"--{key}", str(getattr(scene, key))]
        command += ["--", sys.executable, str(script)]
        self._terminal, theirs = os.openpty()
        modes = termios.tcgetattr(theirs)
        modes[1] &= ~termios.ONLCR
        modes[3] &= ~termios.ECHO
        termios.tcsetattr(theirs, termios.TCSANOW, modes)
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
        )
        os.close(theirs)
        self._told = b""
        self._news = threading.Condition()
        self._over = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        while True:
            try:
                more = os.read(self._terminal, 65_536)
            except OSError:  # the last who had the terminal has gone
                more = b""
            with self._news:
                self._told += more
                self._over = not more
                self._news.notify_all()
            if not more:
                return

    @property
    def told(self) -> str:
        """What it has written so far."""
        return self._told.decode()

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Until something is true, or the program has ended. What it writes is news; so may a file be."""
        with self._news:
            while not self._over and not true():
                self._news.wait(0.1)

    def wait_for_the_storys_end(self) -> None:
        """Until everything that is to happen on the machine has happened."""
        self.wait_until(lambda: self.truth.count() == self.scene.count)

    def press_ctrl_c(self) -> None:
        os.write(self._terminal, b"\x03")

    def end(self) -> str:
        """Waits for its end; gives all that it wrote."""
        self._listener.join()
        assert self.process.wait() == 0, self.told
        return self.told

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.join()
        os.close(self._terminal)


def types_and_messages(events: list[Raised]) -> list[tuple[str, str]]:
    return [(event.type, event.message) for event in events]


@dataclass(frozen=True)
class Program:
    """A program, what happens while it runs, and what it is to tell of that."""

    name: str
    # The facts that it told, by GPU, out of its text and its folder.
    facts: Callable[[str, Path], dict[int, list]]
    types: list[str]
    # The facts that it should tell of these events of a GPU.
    of: Callable[[list[Raised]], list] = types_and_messages
    scene: Scene = Scene()
    # Whether it runs until Ctrl-C.
    endless: bool = True
    # Whether it reads the first GPU only.
    first_gpu_only: bool = False

    @property
    def gpus(self) -> int:
        return 1 if self.first_gpu_only else self.scene.gpus

    def start(self, folder: Path, into: Path) -> OnMachine:
        return OnMachine(folder / f"{self.name}.py", into, self.scene, self.gpus)

    def check(self, running: OnMachine) -> str:
        """Lets it tell everything, ends it, and compares; gives what it wrote."""
        running.wait_for_the_storys_end()
        raised = running.truth.raised(self.types, self.gpus)
        wanted = {gpu: self.of(events) for gpu, events in raised.items()}
        assert {event.type for events in raised.values() for event in events} == set(self.types)
        if self.endless:
            running.wait_until(lambda: self._is_complete(running, wanted))
            running.press_ctrl_c()
        text = running.end()
        found = self.facts(text, running.folder)
        for gpu, facts in wanted.items():
            assert found.get(gpu, []) == facts
        files = running.truth.event_files()
        assert [file["dropped"] for file in files] == [0] * self.gpus
        accepted = {file["gpu"]: file["accepted"] for file in files}
        assert accepted == {gpu: len(events) for gpu, events in raised.items()}
        return text

    def _is_complete(self, running: OnMachine, wanted: dict[int, list]) -> bool:
        try:
            found = self.facts(running.told, running.folder)
        except (AttributeError, IndexError, ValueError, FileNotFoundError):  # not all of it is there yet
            return False
        return all(len(found.get(gpu, [])) >= len(facts) for gpu, facts in wanted.items())


def all_running(
    programs: list[Program], folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, OnMachine]]:
    """Starts all of them at once, since they sleep most of the time; ends what is left of them."""
    skip_unless_possible()
    into = tmp_path_factory.mktemp("programs")
    running: dict[str, OnMachine] = {}
    try:
        for program in programs:
            running[program.name] = program.start(folder, into / program.name)
        yield running
    finally:
        for one in running.values():
            one.close()


__all__ = ["ALL", "OnMachine", "Program", "Scene", "all_running"]
