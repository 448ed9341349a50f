"""The vendor's package `amdsmi`, read as a file: the names and signatures that a program may rely on.

Run as a program it writes `gpuev/amdsmi/_names.py` and `_types.pyi` anew: `python tests/vendor.py WHEEL`.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

VERSION = "7.0.2"


class Function(NamedTuple):
    """A function of the vendor's package."""

    parameters: list[str]
    # Source text by parameter.
    defaults: dict[str, str]
    # The class that a parameter is checked against, by its name.
    checks: dict[str, str]


class Package(NamedTuple):
    """The vendor's package."""

    functions: dict[str, Function]
    # Members and values, in order, by enum.
    enums: dict[str, dict[str, int]]
    exceptions: dict[str, list[str]]
    constants: dict[str, float]
    # What `import amdsmi` gives by name.
    exported: set[str]
    # Members and values of the C enums, by their type.
    c_enums: dict[str, dict[str, int]]


def wheel(folder: Path) -> Path:
    """The pinned wheel: the one that GPUEV_AMDSMI_WHEEL names, else out of the package index."""
    named = os.environ.get("GPUEV_AMDSMI_WHEEL")
    if named:
        return Path(named)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    got = subprocess.run([*command, f"amdsmi=={VERSION}"], capture_output=True, text=True)
    if got.returncode != 0:
        import pytest

        assert "GPUEV_REQUIRE_VENDOR" not in os.environ, got.stderr
        pytest.skip(f"cannot download amdsmi {VERSION}: {got.stderr.strip()[-200:]}")
    [path] = folder.glob("amdsmi-*.whl")
    return path


def read(path: Path) -> Package:
    """Reads a wheel. Nothing of it is run."""
    with zipfile.ZipFile(path) as archive:

        def source(name: str) -> ast.Module:
            return ast.parse(archive.read(f"amdsmi/{name}.py"))

        package, interface = source("__init__"), source("amdsmi_interface")
        exceptions, wrapper = source("amdsmi_exception"), source("amdsmi_wrapper")
    c_enums = _c_enums(wrapper)
    values = {name: value for enum in c_enums.values() for name, value in enum.items()}
    return Package(
        functions={f.name: _function(f) for f in interface.body if _is_public_function(f)},
        enums=_enums(interface, values),
        exceptions={c.name: _init_parameters(c) for c in exceptions.body if isinstance(c, ast.ClassDef)},
        constants=_constants(interface),
        exported={alias.asname or alias.name for alias in _imported(package)},
        c_enums=c_enums,
    )


def _imported(module: ast.Module) -> list[ast.alias]:
    return [alias for node in ast.walk(module) if isinstance(node, ast.ImportFrom) for alias in node.names]


def _is_public_function(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("amdsmi_")


def _function(node: ast.FunctionDef) -> Function:
    names = [argument.arg for argument in node.args.args]
    given = node.args.defaults
    defaults = dict(zip(names[len(names) - len(given) :], map(ast.unparse, given)))
    checks = {}
    for call in (n.test.operand for n in ast.walk(node) if _is_negated(n)):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "isinstance":
            name, kind = map(ast.unparse, call.args)
            if name in names:
                checks[name] = kind.rpartition(".")[2]
    return Function(names, defaults, checks)


def _is_negated(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.UnaryOp)


def _init_parameters(node: ast.ClassDef) -> list[str]:
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == "__init__":
            return [argument.arg for argument in method.args.args[1:]]
    return []


def _enums(module: ast.Module, values: dict[str, int]) -> dict[str, dict[str, int]]:
    enums = {}
    for node in module.body:
        if not isinstance(node, ast.ClassDef) or not {"IntEnum", "Enum"} & {ast.unparse(b) for b in node.bases}:
            continue
        members = [line for line in node.body if isinstance(line, ast.Assign)]
        enums[node.name] = {
            line.targets[0].id: line.value.value
            if isinstance(line.value, ast.Constant)
            else values[line.value.attr]
            for line in members
        }
    return enums


def _constants(module: ast.Module) -> dict[str, float]:
    constants = {}
    for name, value in _assigned(module):
        if isinstance(value, ast.Constant) and isinstance(value.value, int) and not name.startswith("_"):
            constants[name] = value.value
    return constants


def _assigned(module: ast.Module) -> list[tuple[str, ast.expr]]:
    assigned = [node for node in module.body if isinstance(node, ast.Assign)]
    return [(ast.unparse(node.targets[0]), node.value) for node in assigned]


def _c_enums(module: ast.Module) -> dict[str, dict[str, int]]:
    enums = {}
    for name, value in _assigned(module):
        if name.endswith("__enumvalues") and isinstance(value, ast.Dict):
            names = map(ast.literal_eval, value.values)
            enums[name[: -len("__enumvalues")]] = dict(zip(names, map(ast.literal_eval, value.keys)))
    return enums


def _line(name: str, function: Function) -> str:
    words = [name]
    for parameter in function.parameters:
        kind = function.checks.get(parameter)
        word = parameter + (f":{kind}" if kind else "")
        words.append(word + (f"={function.defaults[parameter]}" if parameter in function.defaults else ""))
    return " ".join(words)


def _members(name: str, members: dict[str, int]) -> str:
    return " ".join([name, *(f"{member}={value}" for member, value in members.items())])


def table(package: Package) -> str:
    """The text of `_names.py`."""

    def block(name: str, comment: str, lines: list[str]) -> str:
        return f'\n# {comment}\n{name} = """\\\n' + "".join(f"{line}\n" for line in lines) + '"""\n'

    def enum_lines(enums: dict[str, dict[str, int]]) -> list[str]:
        return [_members(name, members) for name, members in enums.items()]

    return (
        '"""The names of the vendor\'s package amdsmi: made by `tests/vendor.py`, which reads its wheel."""\n\n'
        f'VERSION = "{VERSION}"\n'
        + block(
            "FUNCTIONS",
            "A function a line, with its parameters; after a colon what a parameter must be.",
            [_line(name, function) for name, function in sorted(package.functions.items())],
        )
        + block("ENUMS", "An enum a line, with its members.", enum_lines(package.enums))
        + block(
            "CONSTANTS",
            "Sizes and limits.",
            [f"{name}={value}" for name, value in package.constants.items()],
        )
        + block("C_ENUMS", "An enum of the C library a line, with its members.", enum_lines(package.c_enums))
    )


def stubs(package: Package) -> str:
    """The text of `_types.pyi`: the enums for type checkers."""
    # This one has two members of one value there, which are two here.
    own = {**package.enums["AmdSmiEvtNotificationType"], "PAGE_FAULT_START": 7}
    enums = {**package.enums, "AmdSmiEvtNotificationType": own}
    text = '"""The enumerations of the documented API: made by `tests/vendor.py` of the vendor\'s wheel."""\n\n'
    text += "from enum import IntEnum\n"
    for name, members in enums.items():
        lines = "".join(f"    {member} = {value}\n" for member, value in members.items())
        text += f"\nclass {name}(IntEnum):\n{lines}"
    return text


if __name__ == "__main__":
    folder = Path(__file__).parents[1] / "python/gpuev/amdsmi"
    vendors = read(Path(sys.argv[1]))
    (folder / "_names.py").write_text(table(vendors))
    (folder / "_types.pyi").write_text(stubs(vendors))
