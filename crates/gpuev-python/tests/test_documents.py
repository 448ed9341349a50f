"""Python in the documents works, block by block, as one program."""

import re

import pytest
from conftest import repository

DOCUMENTS = ["docs/coming-from-amdsmi.md", "crates/gpuev-python/README.md"]


def blocks(document):
    text = (repository() / document).read_text()
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, match.start()) + 1
        # Where it stands, for tracebacks.
        yield "\n" * line + match[1]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_it_runs(document, gpu_machine):
    namespace = {}
    found = list(blocks(document))
    assert found
    for block in found:
        exec(compile(block, document, "exec"), namespace)


def test_what_is_said_to_be_the_same_name_exists():
    import amdsmi
    import gpuev

    text = (repository() / DOCUMENTS[0]).read_text()
    for name in re.findall(r"`(amdsmi_\w+)", text):
        assert hasattr(amdsmi, name) or name == "amdsmi_wrapper", name
    for name in re.findall(r"`gpuev\.(\w+)", text):
        assert hasattr(gpuev, name), name
