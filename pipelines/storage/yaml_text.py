"""YAML as people write it: ``1e-5`` is a number, as in YAML 1.2 and JSON.

PyYAML follows YAML 1.1, where a number with an exponent needs a point and a sign, and gives text otherwise.
"""

import re
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """The safe loader with the floats of YAML 1.2 (chapter 10.3.2)."""


class _Dumper(yaml.SafeDumper):
    """Puts text that such a loader would take for a number in quotes."""


for _one in (_Loader, _Dumper):
    _one.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def load_yaml(text: str | bytes) -> Any:
    """The content of a YAML text; nothing but plain values is made.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    return yaml.load(text, Loader=_Loader)


def dump_yaml(values: Any) -> str:
    """Plain values as YAML that :func:`load_yaml` reads back, keys in their order."""
    return str(yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
