"""The README's Python snippets run, and its commands are what the command line understands.

Those of its console blocks are run word for word by .ci/run.
"""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(text):
    """Every ``fastdl ...`` on a line of its own or between backquotes."""
    lines = re.findall(r"^(?: {4}|.*&& )(fastdl [^\n#]+)", text, re.MULTILINE)
    quoted = re.findall(r"`(?:\w+=\w+ )*(fastdl [^`<|]+)`", text)
    return [" ".join(command.split()) for command in lines + quoted]


def test_there_are_snippets():
    assert SNIPPETS


def test_the_two_commands():
    assert re.findall(r"^```console\n(.*?)```", README, re.MULTILINE | re.DOTALL) == [
        "python3 -m venv .venv && . .venv/bin/activate && pip install . && fastdl train\n",
        "pip install '.[test]' && pytest\n",
    ]


@pytest.mark.parametrize(
    "command", sorted({c for text in (README, *DOCS.values()) for c in commands(text)})
)
def test_a_command_is_understood(command):
    parser = import_module("fastdl.cli.main")._parser()
    parser.parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_runs(snippet):
    exec(compile(snippet, "README.md", "exec"), {})


@pytest.mark.parametrize("folder", re.findall(r"`(\w+(?:/\w+)*/)`", README))
def test_a_folder_of_the_map_is_there(folder):
    assert (ROOT / folder).is_dir() or (ROOT / "fastdl" / folder).is_dir()
