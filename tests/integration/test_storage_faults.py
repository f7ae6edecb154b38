"""A bad day of object storage: the stream delivers exactly the plan, or stops and names the object."""

import os
import time

import pytest

from pipelines.config import Config
from pipelines.plan import Plan
from pipelines.storage.filesystem import open_filesystem
from pipelines.storage.retry import Retry
from pipelines.store.index import StoreIndex
from pipelines.store.reader import StoreReader
from pipelines.stream.plain import open_plain_stream
from pipelines.stream.tokenizer import prepare_tokenizer
from tests.fault_proxy import Fault, proxied_s3
from tests.tiny_store import write_store
from unigeoseg.errors import UserError

pytestmark = pytest.mark.integration
STORE = "s3://faults/tiny"
STEPS = 12


@pytest.fixture(scope="module")
def proxy(tmp_path_factory):
    """A store on an S3 server, reached through the proxy."""
    with proxied_s3("faults") as found:
        fs, _ = open_filesystem("s3://faults")
        fs.put(str(write_store(tmp_path_factory.mktemp("store"))), "faults/tiny", recursive=True)
        assert os.environ["AWS_ENDPOINT_URL"] == found.endpoint
        yield found


@pytest.fixture(scope="module")
def config():
    return Config.model_validate(
        {
            "name": "test",
            "model": {"image_size": 64},
            "tokenizer": {"vocab_size": 300},
            "train": {"global_batch": 4, "steps": STEPS},
            "data": {"block_positions": 8},
        }
    )


@pytest.fixture(scope="module")
def tokenizer(proxy, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    prepare_tokenizer(config, StoreIndex.open(STORE), folder)
    return str(folder)


def stream_all(config, tokenizer, pause_s=0.0):
    """Ids by step, and the stream's statistics."""
    found = {}
    with open_plain_stream(config, STORE, tokenizer) as stream:
        for item in stream:
            found.setdefault(item.step, []).extend(item.batch.sample_ids)
            time.sleep(pause_s)
    return found, stream.stats


def planned(config):
    index = StoreIndex.open(STORE)
    plan = Plan.from_config(index, config)
    return {step: index.sample_ids(plan.batch(step).rows) for step in range(STEPS)}


@pytest.mark.parametrize(
    ("name", "weather"),
    [
        ("503 now and then", lambda n, path: Fault(status=503) if n % 7 == 1 else None),
        ("429 now and then", lambda n, path: Fault(status=429) if n % 7 == 2 else None),
        ("500 at the start", lambda n, path: Fault(status=500) if n < 3 else None),
        ("slow", lambda n, path: Fault(delay_s=0.05)),
        ("cut bodies", lambda n, path: Fault(cut=True) if n % 6 == 0 else None),
        ("wrong lengths", lambda n, path: Fault(short=True) if n % 6 == 0 else None),
        ("closed connections", lambda n, path: Fault(silent=True) if n % 5 == 0 else None),
        ("access refused for a moment", lambda n, path: Fault(status=403) if n == 2 else None),
    ],
)
def test_the_plan_arrives_whole(proxy, config, tokenizer, name, weather):
    proxy.change(weather)
    found, stats = stream_all(config, tokenizer)
    assert proxy.faults > 0
    assert found == planned(config)
    assert stats.quarantined == {}


def outage(seconds):
    began = []

    def weather(number, path):
        if number < 4:
            return None
        began.append(time.monotonic())
        return Fault(silent=True) if time.monotonic() - began[0] < seconds else None

    return weather


def test_a_short_outage(proxy, config, tokenizer):
    proxy.change(outage(2.0))
    found, _ = stream_all(config, tokenizer)
    assert proxy.faults > 0
    assert found == planned(config)


@pytest.mark.slow
def test_an_outage_of_a_minute(proxy, config, tokenizer):
    proxy.change(outage(60.0))
    found, stats = stream_all(config, tokenizer)
    assert found == planned(config)
    assert stats.read.retries > 0


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault(status=404), r"s3://faults/tiny/shards/train-00001.tar is missing"),
        (Fault(status=400), r"cannot read s3://faults/tiny/shards/train-00001.tar.*credentials"),
        (Fault(status=403), r"cannot read s3://faults/tiny/shards/train-00001.tar.*credentials"),
        (Fault(short=True), r"cannot read s3://faults/tiny/shards/train-00001.tar.*truncated"),
    ],
    ids=["missing", "expired", "refused", "short"],
)
def test_what_stays_wrong_stops_the_stream_and_is_named(proxy, config, tokenizer, fault, says, monkeypatch):
    patience_s, _, *pauses = Retry.__init__.__defaults__
    monkeypatch.setattr(Retry.__init__, "__defaults__", (patience_s, 0.4, *pauses))
    proxy.change(lambda n, path: fault if "train-00001" in path else None)
    with pytest.raises(UserError, match=says):
        stream_all(config, tokenizer)


def test_an_outage_without_end_is_named(proxy):
    proxy.change(lambda n, path: Fault(silent=True))
    reader = StoreReader(StoreIndex.open(STORE), Retry(0.3, 0.05, 0.01, 0.05))
    with pytest.raises(UserError, match=r"cannot read s3://faults/tiny/shards/train-0000"):
        reader.load([0])


def test_latency_is_hidden(proxy, config, tokenizer):
    """50 ms more for each request, 4 samples each 100 ms: no micro-batch is waited for after the start."""
    proxy.change(lambda n, path: Fault(delay_s=0.05))
    found, stats = stream_all(config, tokenizer, pause_s=0.1)
    assert found == planned(config)
    later = stats.wait_s - stats.first_wait_s
    print(f"waited {stats.first_wait_s:.3f} s at first, then {later:.3f} s in {stats.batches - 1} batches")
