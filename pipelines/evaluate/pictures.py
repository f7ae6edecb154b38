"""The pictures of an evaluation: histogram, categories, sizes, and a contact sheet a task."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.evaluate.data import open_reader
from pipelines.evaluate.evaluate import Evaluation
from pipelines.evaluate.plots import plot_groups, plot_iou_histogram
from pipelines.evaluate.sheets import draw_sheet, examples
from pipelines.storage.filesystem import is_remote, open_filesystem

FOLDER = "plots"
#: Groups that are drawn: key of the result, file, title.
_GROUPS = (
    ("categories", "categories.png", "gIoU by category"),
    ("sizes", "sizes.png", "gIoU by size of the target (share of the image)"),
)


def draw_evaluation(evaluation: Evaluation, out: str, seed: int = 0) -> list[str]:
    """Draws into ``<out>/plots``; the evaluation must hold predictions.

    Args:
        evaluation: finished.
        out: folder or ``s3://`` prefix.
        seed: of the order among samples of equal IoU.

    Returns:
        The paths of the pictures.
    """
    result, predictions = evaluation.result, evaluation.predictions
    if predictions is None:
        raise ValueError("an evaluation without predictions cannot be drawn: Job(keep_predictions=True)")
    with _local(f"{out.rstrip('/')}/{FOLDER}") as folder:
        drawn = [plot_iou_histogram(evaluation.table, folder / "iou.png")]
        drawn += [plot_groups(result[key], title, folder / name) for key, name, title in _GROUPS]
        reader = open_reader(evaluation.index)
        for task, values in result["tasks"].items():
            items = examples(evaluation.table, predictions, task, reader, result["image_size"], seed)
            title = f"{task}: {values['n']} samples, gIoU {values['gIoU']:.3f}, cIoU {values['cIoU']:.3f}"
            drawn.append(draw_sheet(items, title, folder / f"samples-{task}.png"))
        return [f"{out.rstrip('/')}/{FOLDER}/{path.name}" for path in drawn]


@contextmanager
def _local(place: str) -> Iterator[Path]:
    """A local folder whose files are in ``place`` afterwards."""
    filesystem, inside = open_filesystem(place)
    if not is_remote(place):
        Path(inside).mkdir(parents=True, exist_ok=True)
        yield Path(inside)
        return
    with tempfile.TemporaryDirectory(prefix="unigeoseg-plots-") as folder:
        yield Path(folder)
        for path in sorted(Path(folder).iterdir()):
            filesystem.put_file(str(path), f"{inside}/{path.name}")
