"""Bad input through the public command: one message, the right exit code, no traceback."""

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from jobs.cli import _COMMANDS, _DATA, cli, run, user_error
from jobs.lazy import LazyGroup
from jobs.options import emit, json_option
from unigeoseg.errors import UserError


def check(done, code, *parts):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert all(part in done.stderr for part in parts), done.stderr
    assert not done.stdout


def here(capfd, *arguments):
    """As the ``run_cli`` fixture, in this process: heavy libraries are imported once."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(cli, arguments)
    captured = capfd.readouterr()
    return subprocess.CompletedProcess(arguments, caught.value.code, captured.out, captured.err)


def all_commands(group=cli, path=()):
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))


def test_every_command_has_help_with_an_example():
    for path, command in all_commands():
        result = CliRunner().invoke(cli, [*path, "--help"])
        assert result.exit_code == 0, (path, result.output)
        assert f"unigeoseg {' '.join(path)} " in (command.help or ""), f"{' '.join(path)} shows no example"


def test_every_data_command_is_mounted():
    import jobs.data

    assert set(jobs.data.data.commands) <= set(_DATA)


def test_help_and_light_commands_import_nothing_heavy(run_python):
    heavy = "{'torch', 'ray', 'mlflow', 'deepspeed', 'transformers'} & set(sys.modules)"
    for arguments in (["--help"], ["data", "--help"], ["train", "--help"], ["data", "trace", "--help"]):
        done = run_python(
            "import sys\nfrom jobs.cli import cli\n"
            f"cli.main({arguments!r}, standalone_mode=False)\nprint(sorted({heavy}))"
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().splitlines()[-1] == "[]", arguments


def test_unknown_command_names_the_nearest(run_cli, capfd):
    check(run_cli("trian"), 2, "did you mean train?")
    check(here(capfd, "data", "inf"), 2, "did you mean info?")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("model", "info", "--preset", "quickstrat"), ("no preset quickstrat", "did you mean quickstart?")),
        (
            ("model", "info", "--preset", "quickstart", "--set", "train.lrr=1"),
            ("unknown key train.lrr", "did you mean train.lr?"),
        ),
        (("model", "info"), ("--preset",)),
        (("data", "info", "no/such/store"), ("no/such/store",)),
        (("data", "lint", "no/such/store"), ("no/such/store",)),
        (
            ("data", "build", "--source", "synthetc", "--out", "x"),
            ("synthetc", "synthetic"),
        ),
        (
            (
                "data",
                "trace",
                "no/such/store",
                "--preset",
                "quickstart",
                "--steps",
                "0:2",
                "--world-size",
                "2",
            ),
            ("no/such/store",),
        ),
        (("plan", "--preset", "quickstart", "--store", "no/such/store"), ("no/such/store",)),
        (("train", "--preset", "quickstart", "--store", "no/such/store"), ("no/such/store",)),
        (("evaluate", "--model", "no/such/model", "--data", "no/such/store"), ("no/such/",)),
        (("predict", "--model", "no/such/model", "--image", "no.png", "--text", "x", "--out", "o"), ("no",)),
    ],
)
def test_wrong_input_is_one_message_and_2(capfd, monkeypatch, arguments, parts):
    monkeypatch.delenv("UNIGEOSEG_DEBUG", raising=False)
    check(here(capfd, *arguments), 2, *parts)


def test_debug_anywhere_shows_the_traceback(run_cli):
    done = run_cli("model", "info", "--debug", "--preset", "quickstrat")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "error: no preset quickstrat" in done.stderr
    assert "Traceback" in run_cli("model", "info", "--preset", "quickstrat", UNIGEOSEG_DEBUG="1").stderr


@pytest.mark.parametrize(
    ("raised", "code", "text"),
    [
        (UserError("the store is gone; build it"), 2, "error: the store is gone; build it\n"),
        (RuntimeError("boom\n  at x"), 1, "failed: RuntimeError: boom at x (rerun with --debug"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.UsageError("bad"), 2, "bad"),
        (SystemExit(2), 2, ""),
    ],
)
def test_exit_codes(raised, code, text, capsys, monkeypatch):
    monkeypatch.delenv("UNIGEOSEG_DEBUG", raising=False)

    @click.command()
    def command():
        raise raised

    with pytest.raises(SystemExit) as caught:
        run(command, [])
    assert caught.value.code == code
    captured = capsys.readouterr()
    assert text in captured.err
    assert not captured.out


def test_exit_code_of_a_command_is_kept():
    @click.command()
    @click.pass_context
    def command(context):
        context.exit(2)

    with pytest.raises(SystemExit) as caught:
        run(command, [])
    assert caught.value.code == 2


def test_user_error_is_found_under_what_ray_wraps_around_it():
    class Wrapper(RuntimeError):
        def __init__(self, cause=None, failures=None):
            super().__init__("remote traceback")
            self.cause, self.worker_failures = cause, failures

    inner = UserError("no such store")
    assert user_error(Wrapper(cause=inner)) is inner
    assert user_error(Wrapper(failures={0: Wrapper(cause=inner)})) is inner
    assert user_error(Wrapper()) is None
    chained = RuntimeError("outer")
    chained.__cause__ = inner
    assert user_error(chained) is inner


NOISY = """
import os, subprocess, sys, click
from jobs.cli import run
from jobs.options import emit, json_option

@click.command()
@json_option
def noisy(as_json):
    print("a library prints")
    os.write(1, b"native code prints\\n")
    subprocess.run(["echo", "a child prints"])
    emit({"n": 1}, as_json)
    print("and prints again")
run(noisy, sys.argv[1:])
"""


def test_json_is_all_of_stdout():
    done = subprocess.run([sys.executable, "-c", NOISY, "--json"], capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == {"n": 1}
    assert all(text in done.stderr for text in ("a library", "native code", "a child", "again"))
    done = subprocess.run([sys.executable, "-c", NOISY], capture_output=True, text=True, timeout=60)
    assert "native code" in done.stdout


def test_json_of_numpy_values_and_under_a_test_runner():
    np = pytest.importorskip("numpy")

    @click.command()
    @json_option
    def command(as_json):
        print("noise")
        emit({"a": np.float32(0.5), "b": np.arange(3)}, as_json)

    result = CliRunner().invoke(command, ["--json"])
    assert json.loads(result.stdout) == {"a": 0.5, "b": [0, 1, 2]}
    assert "noise" in result.stderr


def test_groups_list_commands_in_the_order_of_use():
    assert isinstance(cli, LazyGroup)
    assert list(_COMMANDS)[:3] == ["quickstart", "plan", "train"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--store", "no/such.db"), ("no/such.db", "make quickstart")),
        (("--store", "LICENSE"), ("LICENSE", "not an MLflow SQLite store")),
    ],
)
def test_mlflow_ui_refuses_a_wrong_store(run_module, arguments, parts):
    check(run_module("cluster.mlflow_ui", *arguments), 2, *parts)


def test_port_in_use_is_said(run_module, tmp_path):
    import socket

    (tmp_path / "mlflow.db").write_bytes(b"SQLite format 3\x00")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        check(run_module("cluster.s3", "--port", port), 2, port, "choose another with --port")
        done = run_module("cluster.mlflow_ui", "--store", str(tmp_path / "mlflow.db"), "--port", port)
        check(done, 2, port, "choose another with --port")
