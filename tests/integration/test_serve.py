"""``unigeoseg serve`` and ``unigeoseg app`` as processes: how they start, what they refuse, how they end."""

import signal
import threading
import time

import pytest
import requests
from PIL import Image

from pipelines.evaluate.evaluate import evaluate_store, write_evaluation
from pipelines.evaluate.models import ModelSource
from pipelines.evaluate.worker import EvalJob
from pipelines.maps.make import make_map
from pipelines.maps.request import Request
from tests.geotiffs import scene, write
from tests.serve_process import start
from tests.tiny_export import write_export
from tests.tiny_store import write_store

pytestmark = pytest.mark.integration
RGB = scene(90, 120).transpose(1, 2, 0)


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    return str(write_export(tmp_path_factory.mktemp("serve") / "export", 64))


def test_what_is_under_way_is_answered_before_the_end(export, tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.png")
    process, url = start(
        "serve", "--model", export, "--no-page", "--image", str(tmp_path / "x.png"), TMPDIR=str(tmp_path)
    )
    try:
        assert requests.get(url, timeout=60).status_code == 404  # no page
        known = requests.put(f"{url}v1/images", data=(tmp_path / "x.png").read_bytes(), timeout=60).json()
        assert list(tmp_path.glob("unigeoseg-uploads-*/*"))
        answers = []

        def ask(number):
            body = {"image": known["image"], "text": f"the block {number}"}
            try:
                answers.append(requests.post(f"{url}v1/segment", json=body, timeout=120).status_code)
            except requests.exceptions.ConnectionError as error:
                answers.append("refused" if "refused" in str(error) else str(error))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        while not answers:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(120)
        # A connection that came after the end began is refused; none that was taken is lost.
        assert set(answers) <= {200, "refused"} and answers.count(200) >= 2, answers
        assert process.wait(60) == 0
        assert not list(tmp_path.glob("unigeoseg-uploads-*"))
    finally:
        process.kill()
        process.wait()


def test_the_page_has_what_the_command_names_and_an_interruption_is_a_success(export, tmp_path):
    store = str(write_store(tmp_path / "store", 2, 64))
    job = EvalJob(store, "train", ModelSource(export), keep_predictions=True)
    write_evaluation(evaluate_store(job), str(tmp_path / "evaluation"), save_predictions=True)
    raster = write(tmp_path / "city.tif", scene(90, 120))
    make_map(Request(model=export, inputs=(raster,), out=str(tmp_path / "map"), text="a"), progress=False)
    names = ("--store", store, "--evaluation", str(tmp_path / "evaluation"), "--map", str(tmp_path / "map"))
    more = ("--image", raster, "--upload-mb", "3", "--host", "0.0.0.0", "--token", "auto")
    process, url = start("app", "--model", export, *names, *more)
    try:
        token = {"authorization": f"Bearer {url.partition('?token=')[2]}"}
        local = url.partition("?")[0].replace("0.0.0.0", "127.0.0.1")
        about = requests.get(f"{local}v1/about", headers=token, timeout=60).json()
        assert (about["store"], about["evaluations"], about["maps"]) == (store, 1, 1)
        assert about["upload"] == 3 * 2**20 and about["examples"][0]["name"] == "city.tif"
        for path in ("store", "evaluation", "maps/0"):
            assert requests.get(f"{local}v1/{path}", headers=token, timeout=60).status_code == 200
        assert "?token=" in url
        assert (
            requests.get(url.partition("?")[0].replace("0.0.0.0", "127.0.0.1"), timeout=60).status_code == 401
        )
        page = requests.get(url.replace("0.0.0.0", "127.0.0.1"), timeout=60)
        assert page.status_code == 200 and "/static/main.js" in page.text
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert "Traceback" not in process.printed()
    finally:
        process.kill()
        process.wait()


def test_refusals(run_cli, export):
    for arguments, said in (
        (("--host", "0.0.0.0"), "--token auto"),
        (("--host", "0.0.0.0", "--token", "short"), "at least 16"),
        (("--store", "no/such/store"), "no store"),
    ):
        found = run_cli("app", "--model", export, *arguments)
        assert found.returncode == 2 and said in found.stderr, found.stderr
    found = run_cli("serve", "--model", "no/such/model")
    assert found.returncode == 2 and "no model at" in found.stderr
