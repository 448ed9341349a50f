"""Run a program with gpuev's event reader in the vendor's `amdsmi` that it imports.

    python -m gpuev.amdsmi PROGRAM [ARGUMENT ...]
    python -m gpuev.amdsmi -m MODULE [ARGUMENT ...]
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Optional, Sequence


class _Improving(Loader):
    """Loads the package as its own loader does, then improves it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        from ._improve import improve

        self._loader.exec_module(module)
        improve(module)


class _Finder(MetaPathFinder):
    """Finds the package `amdsmi` where it is."""

    _busy = False

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        if fullname != "amdsmi" or self._busy:
            return None
        self._busy = True
        try:
            spec = find_spec(fullname)
        finally:
            self._busy = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Improving(spec.loader)
        return spec


def _is_module(name: str) -> bool:
    if name.startswith("."):
        return False
    try:
        return find_spec(name) is not None
    except ValueError:  # no name at all
        return False
    except ModuleNotFoundError as error:
        # What one of its packages lacks is told by the traceback of the run.
        return not f"{name}.".startswith(f"{error.name}.")


def _find(program: str) -> Optional[str]:
    """The file or folder that Python can run, else the installed program of that name."""
    folder_runs = os.path.isfile(os.path.join(program, "__main__.py"))
    if os.path.isfile(program) or folder_runs:
        return program
    # A folder of a package's sources often has the name of the package's program.
    return shutil.which(program)


def main(arguments: list[str]) -> int:
    """Runs the program that `arguments` name."""
    as_module = arguments[:1] == ["-m"]
    rest = arguments[1:] if as_module else arguments
    if not rest or (rest[0].startswith("-") and not as_module):
        print((__doc__ or "").strip(), file=sys.stderr)
        return 0 if rest[:1] in (["-h"], ["--help"]) else 2
    program = rest[0]
    sys.meta_path.insert(0, _Finder())
    sys.argv = rest
    if as_module:
        sys.path[0] = os.getcwd()
        if not _is_module(program):
            print(f"python -m gpuev.amdsmi: no module {program!r}", file=sys.stderr)
            return 1
        runpy.run_module(program, run_name="__main__", alter_sys=True)
        return 0
    path = _find(program)
    if path is None:
        print(f"python -m gpuev.amdsmi: no program {program!r}", file=sys.stderr)
        return 127
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    runpy.run_path(path, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
