"""The quickstart's own part: what it reuses, what it replaces, what it prints."""

import pytest

from jobs.quickstart import results_table
from jobs.settings import load_config, print_config
from pipelines.experiments.quickstart import clear_run, prepare_store
from unigeoseg.errors import UserError

TINY = ("build.source.scenes=12", "build.workers=0", "build.split.val=0.3")


@pytest.fixture(scope="module")
def config():
    return load_config("quickstart", TINY)


def test_store_is_reused_until_its_configuration_changes(config, tmp_path):
    store = str(tmp_path / "store")
    assert prepare_store(config.build, store, progress=False)
    assert not prepare_store(config.build, store, progress=False)
    assert not prepare_store(config.build.model_copy(update={"workers": 1}), store, progress=False), (
        "settings without effect on the bytes do not count"
    )
    (tmp_path / "store" / "dataset.json").unlink()
    assert prepare_store(config.build, store, progress=False), "an unfinished store is not reused"
    assert prepare_store(config.build.model_copy(update={"seed": 9}), store, progress=False)


def test_preset_without_build_section_is_refused(tmp_path):
    with pytest.raises(UserError, match="no build section"):
        prepare_store(load_config("paper").build, str(tmp_path), progress=False)


def fill(folder, config):
    (folder / "checkpoints" / "step-00000010").mkdir(parents=True)
    (folder / "store").mkdir()
    for name in ("ledger.jsonl", "summary.json", "store/dataset.json", "notes.txt"):
        (folder / name).write_text("x")
    (folder / "config.yaml").write_text(print_config(config))


def test_earlier_run_goes_and_its_store_stays(config, tmp_path):
    fill(tmp_path, config)
    clear_run(config, str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "store"]
    clear_run(config, str(tmp_path / "new"))


def test_run_of_another_job_is_left_alone(config, tmp_path):
    fill(tmp_path, load_config("small"))
    before = sorted(tmp_path.rglob("*"))
    clear_run(config, str(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_table_has_a_row_a_task_and_says_what_is_missing():
    values = {"n": 300, "gIoU": 0.5123, "cIoU": 0.6, "swap_own_gIoU": None}
    lines = results_table({"tasks": {"interactive": values, "reasoning": values}}).splitlines()
    assert lines[1].split()[:4] == ["interactive", "300", "0.512", "0.600"]
    assert lines[1].split()[6] == "-"
    assert lines[2].startswith("reasoning")
