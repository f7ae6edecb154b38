"""Construction through Ray Data from a web server and a bucket: the same bytes as from a folder."""

import numpy as np
import pytest

from cluster.s3 import LocalS3
from pipelines.storage.filesystem import open_filesystem
from tests.integration.test_build_ray import build
from tests.release_layouts import LAYOUTS
from tests.unit.build.layouts import write_image
from tests.unit.labels.test_unmatched import MASKS
from tests.web_server import WebServer

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Masks and a benchmark in a folder, and the same on a web server and in a bucket."""
    root = tmp_path_factory.mktemp("remote") / "data"
    rng = np.random.default_rng(0)
    for number in range(10):
        mask = np.zeros((64, 64), np.uint8)
        mask[10 : 30 + number, 10:40] = 1
        write_image(root / "masks/i" / f"{number}.png", rng.integers(0, 256, (64, 64, 3)).astype(np.uint8))
        write_image(root / "masks/m" / f"{number}.png", mask)
    LAYOUTS["refsegrs"](root / "bench", 10)
    with LocalS3() as server, WebServer(root) as web, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        filesystem, bucket = open_filesystem(server.url)
        filesystem.put(str(root), f"{bucket}/data", recursive=True)
        yield {"folder": str(root), "s3": f"{server.url}/data", "web": web.url}


@pytest.fixture(scope="module")
def cluster(places):
    """Started when the bucket's keys are set: its workers have the settings of that moment."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("place", ["web", "s3"])
def test_workers_read_elsewhere_what_one_process_reads_here(cluster, place, places, tmp_path):
    (tmp_path / "t.yaml").write_text(MASKS)
    for source, folder in ((str(tmp_path / "t.yaml"), "masks"), ("refsegrs", "bench")):
        alone = build(tmp_path / folder / "here", 0, source, f"{places['folder']}/{folder}")
        assert sum(name.endswith(".tar") for name in alone) >= 1
        assert build(tmp_path / folder / place, 2, source, f"{places[place]}/{folder}") == alone
