"""What a checkpoint gave to a model: loaded, missing and unexpected keys; a mismatch is refused."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unigeoseg.errors import UserError

_SHOWN = 5


@dataclass
class LoadReport:
    """Outcome of loading one source.

    Attributes:
        source: path of the checkpoint.
        form: what it was recognised as.
        loaded: names of our parameters that were set from it.
        missing: parameters that it should have filled but does not hold; they keep their start values.
        unexpected: keys of the checkpoint that belong to nothing in the model.
        unused: keys that have no counterpart by design (class heads, learned query embeddings).
        notes: what else a person should know.
    """

    source: str
    form: str
    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """As a dictionary, with counts first."""
        lists = {name: getattr(self, name) for name in ("loaded", "missing", "unexpected", "unused")}
        counts = {name: len(names) for name, names in lists.items()}
        named = {name: names for name, names in lists.items() if name != "loaded"}
        return {"source": self.source, "form": self.form, "counts": counts, **named, "notes": self.notes}

    def summary(self) -> str:
        """One line for people."""
        text = (
            f"{self.source} ({self.form}): {len(self.loaded)} parameters loaded, "
            f"{len(self.missing)} missing, {len(self.unexpected)} unexpected, "
            f"{len(self.unused)} unused by design"
        )
        return "; ".join([text, *self.notes])


def load_named(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    report: LoadReport,
    prefixes: Iterable[str] = ("",),
    may_miss: Iterable[str] = (),
    strict: bool = True,
    mapped: bool = False,
) -> LoadReport:
    """Copies ``tensors``, already under our names, into ``model`` and fills ``report``.

    Nothing is written unless everything fits.

    Args:
        model: the target.
        tensors: parameters and persistent buffers by our names.
        report: with ``source``, ``form`` and perhaps ``unexpected`` and ``unused`` set.
        prefixes: the parts of the model that the source must fill.
        may_miss: names that sources of this form do not hold.
        strict: refuse missing and unexpected keys instead of only reporting them.
        mapped: put the tensors themselves in their places, which stay a file's pages until they are written
            to; for a model that will soon be copied elsewhere.

    Raises:
        UserError: a shape differs (always); keys are missing or unexpected (``strict``).
    """
    starts, optional = tuple(prefixes), set(may_miss)
    targets = {name: t for name, t in model.state_dict(keep_vars=True).items() if name.startswith(starts)}
    wrong = [
        f"{name}: checkpoint {tuple(tensors[name].shape)}, model {tuple(target.shape)}"
        for name, target in targets.items()
        if name in tensors and tensors[name].shape != target.shape
    ]
    if wrong:
        raise UserError(
            f"{report.source} is for a model of other sizes, {len(wrong)} tensors differ ({_some(wrong)}); "
            "set the model section to the checkpoint's sizes"
        )
    report.loaded = [name for name in targets if name in tensors]
    report.missing = [name for name in targets if name not in tensors]
    report.unexpected = [*report.unexpected, *(name for name in tensors if name not in targets)]
    needed = [name for name in report.missing if name not in optional]
    if strict and (needed or report.unexpected):
        raise UserError(
            f"{report.source} ({report.form}) does not fit the model: {len(report.loaded)} parameters fit, "
            f"{len(needed)} are missing ({_some(needed)}), {len(report.unexpected)} are unexpected "
            f"({_some(report.unexpected)}); give the model section the checkpoint's depths and widths, or "
            "accept the rest as it is with --set init.strict=false"
        )
    if not report.loaded:
        raise UserError(
            f"{report.source} ({report.form}) holds no parameter of the model; is it the right file?"
        )
    with torch.no_grad():
        for name in report.loaded:
            target, value = targets[name], tensors[name]
            if mapped and target.dtype == value.dtype:
                target.data = value
            else:
                target.copy_(value)
    return report


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more if names else "none"
