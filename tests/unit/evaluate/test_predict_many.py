"""``unigeoseg predict --images``: folders, patterns, tables of questions."""

import json

import numpy as np
import pytest
from PIL import Image

from jobs.cli import cli, run
from pipelines.evaluate.predict import predict_file
from pipelines.evaluate.predict_many import predict_many
from tests.geotiffs import scene, write
from unigeoseg.errors import UserError
from unigeoseg.question import Question

ASK = Question.ask(text="the block")


@pytest.fixture
def scenes(tmp_path):
    folder = tmp_path / "scenes"
    write(folder / "b.tif", scene(60, 40, 1))
    (folder / "sub").mkdir()
    for number, name in enumerate(("a.png", "sub/a.png", "c.jpg", "c.png")):
        Image.fromarray(np.moveaxis(scene(50, 64, number), 0, -1)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def many(export, *arguments, **options):
    return predict_many(export, *arguments, progress=False, **options)


def test_a_folder_gives_what_single_predictions_give(export, scenes, tmp_path):
    found = many(export, str(scenes), tmp_path / "out", ASK, batch=1)
    names = {row["image"].partition("scenes/")[2]: row for row in found["rows"]}
    assert sorted(names) == ["a.png", "b.tif", "c.jpg", "c.png", "sub/a.png"] and not found["failed"]
    assert json.loads((tmp_path / "out/predictions.json").read_text()) == found
    assert len({file for row in found["rows"] for file in row["files"]}) == 16  # the GeoTIFF has four
    for name, row in names.items():
        alone = predict_file(export, scenes / name, ASK, tmp_path / "alone")
        assert alone["score"] == row["score"]
        assert (tmp_path / "alone/mask.png").read_bytes() == open(row["files"][0], "rb").read()  # noqa: SIM115, PTH123


def test_patterns_and_damaged_pictures(export, scenes, tmp_path):
    (scenes / "d.png").write_bytes(b"\x89PNG no more")
    found = many(export, str(scenes / "*.png"), tmp_path / "out", ASK)
    assert len(found["rows"]) == 2
    (failed,) = found["failed"]
    assert failed["image"].endswith("d.png") and "damaged" in failed["reason"]
    with pytest.raises(UserError, match="no picture"):
        many(export, str(scenes / "*.gif"), tmp_path / "out", ASK)


def test_a_table_of_questions(export, scenes, tmp_path):
    table = tmp_path / "q.csv"
    table.write_text(
        "image,text,question,box,points\n"
        'b.tif,the block,,,\nsub/a.png,,Where?,,\nb.tif,,,"0.1,0.2,0.5,0.6",\nc.png,,,,"0.2,0.3;0.5,0.5"\n'
    )
    found = many(export, str(scenes), tmp_path / "out", questions=str(table))
    assert [row["task"] for row in found["rows"]] == ["referring", "reasoning", "interactive", "interactive"]
    folders = {file.rpartition("/")[0].rpartition("/")[2] for row in found["rows"] for file in row["files"]}
    assert folders == {"b__1", "sub__a", "b__2", "c.png"}
    table.write_text("text\nthe block\nthe tree\n")
    assert len(many(export, str(scenes / "*.jpg"), tmp_path / "all", questions=str(table))["rows"]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,words\na.png,x\n", "columns image, words"),
        ("image,text\n", "no rows"),
        ("image,text\nz.png,x\n", "line 2: 'z.png' is none of"),
        ("image,text\na.png,x\n", "line 2: 'a.png' is the name of several"),
        ('image,text,box\nb.tif,x,"0,0,1,1"\n', "line 2: give one of"),
        ("image,box\nb.tif,1\n", "line 2: box '1'"),
    ],
)
def test_tables_that_cannot_be_used(export, scenes, tmp_path, content, message):
    (tmp_path / "q.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        many(export, str(scenes), tmp_path / "out", questions=str(tmp_path / "q.csv"))


def test_the_command_counts_what_failed(export, scenes, tmp_path, capsys):
    (scenes / "d.png").write_bytes(b"\x89PNG no more")
    words = ["predict", "--model", export, "--images", str(scenes), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as caught:
        run(cli, [*words, "--question", "Where?", "--json"])
    assert caught.value.code == 1
    told = json.loads(capsys.readouterr().out)
    assert len(told["rows"]) == 5 and len(told["failed"]) == 1
    for wrong in ([], ["--text", "a", "--questions", "q.csv"]):
        with pytest.raises(SystemExit) as caught:
            run(cli, [*words, *wrong])
        assert caught.value.code == 2
