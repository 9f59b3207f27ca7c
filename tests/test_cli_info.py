"""``fastdl info`` as a user types it."""

import fastdl
from fastdl.backends import registry
from fastdl.bench import machine
from fastdl.cli import info, main


def facts(text):
    """The words after each name; the backends by their own names."""
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        value = value.strip()
        if name == "backend":
            name, _, value = value.partition(" ")
        found[name] = value.strip()
    return found


def test_it_tells_everything(capsys):
    assert main(["info"]) == 0
    found = facts(capsys.readouterr().out)
    assert found["version"] == fastdl.__version__
    assert found["threads"] == str(fastdl.get_num_threads())
    assert found["processor"]
    assert found["memory"]
    assert "numpy" in found["packages"]
    assert set(registry.NAMES) <= set(found)
    assert found["reference"].startswith("works")
    assert found[registry.current_name()].endswith("(serves calls that name no other)")


def test_the_instruction_set(capsys):
    line = facts(info.information())["instructions"]
    picked = machine.instruction_set()
    if picked is None:
        assert line.startswith("none")
    else:
        assert line.startswith(picked)
        assert all(name in line for name in machine.instruction_sets())


def test_why_a_backend_is_missing(monkeypatch):
    reason = "no compiler; install a C++ compiler"
    absent = {"compiled": reason, "jit": None, "reference": None, "naive": None}
    monkeypatch.setattr(info, "available_backends", lambda: absent)
    monkeypatch.setattr(machine, "why_missing", absent.get)
    found = facts(info.information())
    assert found["compiled"].startswith(f"missing: {reason}")
    assert found["instructions"].startswith("none")


def test_how_busy_the_machine_is():
    busy = machine.busy(0.05)
    assert busy is None or busy >= 0
