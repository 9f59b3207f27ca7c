"""The README's Python snippets run, and its commands are those that are checked."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_there_are_snippets():
    assert SNIPPETS


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet):
    exec(compile(snippet, "README.md", "exec"), {})


@pytest.mark.parametrize("folder", re.findall(r"`(\w+(?:/\w+)*/)`", README))
def test_a_folder_of_the_map_is_there(folder):
    assert (ROOT / folder).is_dir() or (ROOT / "fastdl" / folder).is_dir()
