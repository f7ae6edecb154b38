"""An export of this project as the start of another training."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from unigeoseg.errors import UserError
from unigeoseg.model import UniGeoSeg
from unigeoseg.samples.tokens import FILE, Tokenizer, load_tokenizer
from unigeoseg.weights.report import LoadReport, load_named
from unigeoseg.weights.words import map_words, moved_rows, same_words, word_parameters

_WEIGHTS = "model.safetensors"


def load_export_weights(
    model: UniGeoSeg,
    folder: str | Path,
    strict: bool = True,
    tokenizer: Tokenizer | None = None,
    mapped: bool = False,
) -> LoadReport:
    """Takes every parameter from an export folder; rows of words follow the words, norms the image's size.

    Args:
        model: the target.
        folder: of the export.
        strict: refuse missing and unexpected keys instead of only reporting them.
        tokenizer: the run's. Where the export's own gives other ids, embedding and output rows are taken by
            the tokens' text and new tokens keep their start values. Without the export's tokenizer no row
            can be told, so all keep theirs. ``None``: both are the same.
        mapped: see :func:`~unigeoseg.weights.report.load_named`.

    Raises:
        UserError: no export there, a damaged file, or sizes and keys that do not fit.
    """
    folder = Path(folder)
    path = folder / _WEIGHTS
    if not path.is_file():
        raise UserError(f"{folder} is not an export: {_WEIGHTS} is missing (give a run's export/ folder)")
    try:
        tensors = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or cut off ({error}); copy it again") from error
    report = LoadReport(str(folder), "export")
    if tokenizer is not None:
        _follow_words(model, tensors, tokenizer, folder, report)
    _follow_size(model, tensors, report)
    return load_named(model, tensors, report, strict=strict, mapped=mapped)


def has_words_of(folder: str | Path, tokenizer: Tokenizer) -> bool:
    """Whether an export's words are a tokenizer's, so that every row of the model can be taken from it."""
    folder = Path(folder)
    return (folder / FILE).is_file() and same_words(load_tokenizer(folder), tokenizer)


def _follow_size(model: UniGeoSeg, tensors: dict[str, Tensor], report: LoadReport) -> None:
    """Resamples what the connector's norms hold for each position of the map, for images of another size.

    Nothing else has a place for each position (a Swin whose map is smaller than its window has smaller tables
    of positions within it; those are refused by their shape).
    """
    moved = []
    for number, norm in enumerate((model.connector.norm1, model.connector.norm2), 1):
        width, *sides = norm.normalized_shape
        for kind in ("weight", "bias"):
            name = f"connector.norm{number}.{kind}"
            found = tensors.get(name)
            if found is None or found.ndim != 3 or len(found) != width or [*found.shape[1:]] == sides:
                continue
            tensors[name] = functional.interpolate(found[None].float(), sides, mode="bilinear")[0]
            moved.append((found.shape[1], sides[0]))
    if moved:
        before, after = moved[0]
        report.notes.append(
            f"another image size: the connector's norms went from {before} x {before} to {after} x {after} "
            "positions"
        )


def _follow_words(
    model: UniGeoSeg, tensors: dict[str, Tensor], tokenizer: Tokenizer, folder: Path, report: LoadReport
) -> None:
    """Puts the rows of ``tensors`` that stand for words in the order of ``tokenizer``."""
    fresh = {name: p for name, p in word_parameters(model).items() if name in tensors}
    if not (folder / FILE).is_file():
        tensors |= {name: p.detach().clone() for name, p in fresh.items()}
        report.notes.append(
            f"{FILE} is missing there, so its rows have no words: all tokens start fresh, everything else is "
            "kept; copy the whole export folder to keep its words"
        )
        return
    before = load_tokenizer(folder)
    if same_words(before, tokenizer):
        report.notes.append(f"words: the same {tokenizer.vocab_size} tokens")
        return
    rows = max((len(p) for p in fresh.values()), default=tokenizer.vocab_size)
    words = map_words(before, tokenizer, rows)
    tensors |= {name: moved_rows(tensors[name], p, words) for name, p in fresh.items()}
    report.notes.append(words.summary())
