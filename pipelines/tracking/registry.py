"""MLflow's model registry: a run's export as a version of a named model, found again as ``models:/...``."""

import os
import re
import tempfile
from pathlib import Path
from typing import Any

from pipelines.storage.filesystem import open_filesystem
from pipelines.tracking.lookup import open_client, tracking_uri
from unigeoseg.errors import UserError

SCHEME = "models:/"
#: Where an export lies among a run's artifacts.
ARTIFACT = "export"
_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))$")


def register_export(
    run_id: str, export: str, name: str, alias: str | None, uri: str, tags: dict[str, str]
) -> dict[str, Any]:
    """Uploads an export to its run's artifacts and registers it.

    Args:
        run_id: MLflow run that trained it.
        export: folder or ``s3://`` prefix with ``config.json`` and ``model.safetensors``.
        name: of the registered model.
        alias: that points to this version from now on.
        uri: server or database.
        tags: of the version.

    Returns:
        ``{"name", "version", "alias", "uri", "run_id"}``.
    """
    from mlflow.exceptions import MlflowException

    client = open_client(uri)
    filesystem, inside = open_filesystem(export)
    with tempfile.TemporaryDirectory(prefix="unigeoseg-register-") as folder:
        local = Path(folder) / ARTIFACT
        filesystem.get(inside.rstrip("/") + "/", f"{local}/", recursive=True)
        client.log_artifacts(run_id, str(local), ARTIFACT)
    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)
    source = f"{client.get_run(run_id).info.artifact_uri}/{ARTIFACT}"
    version = client.create_model_version(name, source, run_id, tags=tags)
    if alias:
        client.set_registered_model_alias(name, alias, version.version)
    return {
        "name": name,
        "version": int(version.version),
        "alias": alias,
        "uri": f"{SCHEME}{name}@{alias}" if alias else f"{SCHEME}{name}/{version.version}",
        "run_id": run_id,
    }


def fetch_model(model: str, folder: str, uri: str | None = None) -> str:
    """Downloads what ``models:/name@alias`` or ``models:/name/version`` names into ``folder``; its path.

    Raises:
        UserError: no such form, model, alias or version, or MLflow does not answer.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    found = _URI.match(model)
    if not found:
        raise UserError(f"{model}: expected models:/NAME@ALIAS or models:/NAME/VERSION")
    where = tracking_uri(uri)
    client = open_client(where)
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        if alias := found["alias"]:
            version = client.get_model_version_by_alias(found["name"], alias)
        else:
            version = client.get_model_version(found["name"], found["version"])
    except MlflowException as error:
        names = sorted(m.name for m in client.search_registered_models())
        raise UserError(
            f"{model} is not registered at {where} ({' '.join(str(error).split())[:120]}); there are: "
            f"{', '.join(names) or 'none'}"
        ) from error
    return str(download_artifacts(artifact_uri=version.source, dst_path=folder, tracking_uri=where))
