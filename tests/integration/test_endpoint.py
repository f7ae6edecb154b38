"""Writing and judging through a real HTTP endpoint that misbehaves."""

import json
import re
import tarfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from jobs.data import data
from pipelines.build import BuildConfig, build_store
from pipelines.build.card import config_hash
from pipelines.build.endpoint.answers import AnswerCache
from pipelines.build.endpoint.client import Endpoint, NoAnswer
from pipelines.build.endpoint.render import COLOURS, image_tokens, outlined
from pipelines.build.endpoint.schemas import Phrase
from pipelines.config.endpoint import EndpointConfig
from pipelines.labels.regions import Region
from tests.chat_server import ANSWERS, chat_server, picture, question
from unigeoseg.errors import UserError

pytestmark = pytest.mark.integration
IMAGE = "data:image/png;base64,AAAA"


@pytest.fixture
def chat(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    # The client's first wait is half a second; its growth and its cap stay as they are.
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    with chat_server() as server:
        yield server


def endpoint(chat, tmp_path, **settings):
    settings = {"model": "writer", "base_url": chat.url, "timeout_s": 0.5, "retries": 3} | settings
    return Endpoint(EndpointConfig(**settings), AnswerCache(str(tmp_path / "answers")), 1)


def ask(client, text="What is it?"):
    return client.ask("writer", text, IMAGE, Phrase)


@pytest.mark.parametrize("fault", ["429", "500", "timeout", "drop"])
def test_passing_trouble_is_retried(chat, tmp_path, fault):
    chat.faults.extend([fault, fault])
    client = endpoint(chat, tmp_path)
    assert ask(client).phrase == ANSWERS["Phrase"]["phrase"]
    assert len(chat.requests) == 3 and client.usage.requests == 1
    assert chat.keys == {"Bearer secret-key"}


@pytest.mark.parametrize(
    ("fault", "words"), [("429", "answered 429"), ("500", "answered 500"), ("drop", "reached")]
)
def test_lasting_trouble_ends_with_a_word_and_what_to_do(chat, tmp_path, fault, words):
    chat.faults.extend([fault] * 9)
    with pytest.raises(UserError, match=f"{words}.*after 3 retries.*same command again"):
        ask(endpoint(chat, tmp_path))
    assert len(chat.requests) == 4


def test_a_refused_key_is_not_retried_and_never_shown(chat, tmp_path):
    chat.faults.append("401")
    with pytest.raises(UserError, match=r"401.*check the key in OPENAI_API_KEY") as caught:
        ask(endpoint(chat, tmp_path))
    assert len(chat.requests) == 1 and "secret" not in str(caught.value)


@pytest.mark.parametrize("fault", ["filter", "cut"])
def test_a_content_filter_refuses_one_question_and_is_not_asked_again(chat, tmp_path, fault):
    chat.faults.append(fault)
    client = endpoint(chat, tmp_path)
    for _ in range(2):
        with pytest.raises(NoAnswer, match="refused"):
            ask(client)
    assert len(chat.requests) == 1
    assert ask(client, "And this?").phrase == ANSWERS["Phrase"]["phrase"]


def test_another_bad_request_still_ends_the_build_with_a_hint(chat, tmp_path):
    chat.faults.append("400")
    with pytest.raises(UserError, match=r"answered 400.*endpoint\.model"):
        ask(endpoint(chat, tmp_path))


def test_a_build_goes_on_past_a_content_filter(chat, tmp_path):
    chat.faults.extend(["ok", "filter", "ok", "cut"])
    result = build(tmp_path / "s", chat, judges=[])
    dropped = Counter()
    for row in result["stages"]:
        dropped.update({reason: n for reason, n in row["dropped"].items() if "refused" in reason})
    assert dropped == {"refused": 2} and result["samples"]["referring"]
    asked = len(chat.requests)
    build(tmp_path / "t", chat, judges=[], cache=str(tmp_path / "s-answers"))
    assert len(chat.requests) == asked  # also the refusals were kept


def test_many_that_write_one_answer_end_with_the_same(tmp_path):
    def write(number):
        cache = AnswerCache(str(tmp_path / "answers"))
        return [cache.put(f"{key:064d}", {"by": number, "text": "x" * 4096}) for key in range(60)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(write, range(8)))
    cache = AnswerCache(str(tmp_path / "answers"))
    kept = [cache.get(f"{key:064d}") for key in range(60)]
    assert all(one == kept for one in found)
    assert not list((tmp_path / "answers").rglob("*.partial"))
    cache.put("0" * 64, {"by": 99})
    assert cache.get("0" * 64) == kept[0]
    (file,) = (tmp_path / "answers").rglob(f"{0:064d}.json")
    file.write_text("{")
    assert cache.put("0" * 64, {"by": 99}) == {"by": 99} == cache.get("0" * 64)


def test_a_key_is_needed_for_the_public_endpoint_only(monkeypatch, tmp_path):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        Endpoint(EndpointConfig(model="m"), AnswerCache(str(tmp_path)), 1)
    Endpoint(EndpointConfig(model="m", base_url="http://127.0.0.1:1/v1"), AnswerCache(str(tmp_path)), 1)


def test_invalid_answers_are_asked_for_once_more(chat, tmp_path):
    client = endpoint(chat, tmp_path)
    chat.faults.append("prose")
    assert ask(client).phrase
    assert "not the JSON asked for" in chat.requests[1]["messages"][-1]["content"]
    chat.faults.extend(["empty", "prose"])
    with pytest.raises(NoAnswer) as caught:
        ask(client, "Another?")
    assert caught.value.reason == "invalid_answer"
    chat.answers["Phrase"] = {"phrase": "Something.", "more": 1}
    with pytest.raises(NoAnswer):
        ask(client, "A third?")


def test_nothing_is_paid_twice(chat, tmp_path):
    chat.faults.append("refusal")
    for _ in range(2):
        with pytest.raises(NoAnswer, match="refused"):
            ask(endpoint(chat, tmp_path), "May I?")
    ask(endpoint(chat, tmp_path))
    again = endpoint(chat, tmp_path)
    ask(again)
    assert len(chat.requests) == 2 and again.usage.cached == 1 and again.usage.prompt_tokens == 0
    again.ask("judge", "What is it?", IMAGE, Phrase)  # another model is another question
    assert len(chat.requests) == 3
    for file in (tmp_path / "answers").rglob("*.json"):
        assert "secret" not in file.read_text()


def test_requests_keep_their_pace(chat, tmp_path):
    client = endpoint(chat, tmp_path, requests_per_minute=1200)
    for n in range(4):
        ask(client, str(n))
    assert min(b - a for a, b in pairwise(chat.times)) > 0.03  # 50 ms apart, less the noise of arrival


def schema_of(body):
    return body["response_format"]["json_schema"]


def build(out, chat, scenes=2, instruct=None, images=1, **settings):
    sets = {"model": "writer", "judges": ["first", "second"], "base_url": chat.url} | settings
    config = BuildConfig(
        workers=0,
        block_images=images,
        source={"scenes": scenes},
        endpoint=sets,
        tile={"size": 128, "stride": 128},
        instruct=instruct or {"diversity_quantile": 0},
    )
    return build_store("synthetic", None, out, config, progress=False, preview=False)


def records(store):
    for shard in sorted((store / "shards").glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    yield from json.load(tar.extractfile(member))["samples"]


def test_two_judges_must_agree_and_their_scores_are_kept(chat, tmp_path):
    def strict(body):
        low = body["model"] == "second" and "building" in question(body)
        return ANSWERS["RegionVerdict"] | ({"distinctness": 3} if low else {})

    chat.answers["RegionVerdict"] = strict
    result = build(tmp_path / "store", chat)
    stages = {s["name"]: s for s in result["stages"]}
    assert stages["judge"]["dropped"]["low_distinctness"] > 0 < stages["judge"]["out"]
    written = [s for s in records(tmp_path / "store") if s["task"] != "interactive"]
    assert written and all(s["category"] != "Building" for s in written)
    assert all(set(s["quality"]) == {"region", "sample"} for s in written)
    assert all(set(s["quality"]["sample"]) == {"first", "second"} for s in written)
    assert {s["instruction"] for s in written if s["task"] == "referring"} == {ANSWERS["Phrase"]["phrase"]}
    paid, guess = result["endpoint"]["actual"], result["endpoint"]["estimate"]
    assert paid["requests"] == len(chat.requests) and paid["prompt_tokens"] == 100 * len(chat.requests)
    assert 0.5 < guess["requests"] / paid["requests"] < 4 and paid["dollars"] > 0


def test_context_is_asked_in_two_stages_with_colours(chat, tmp_path):
    build(tmp_path / "store", chat, judges=[])
    stages = [b["response_format"]["json_schema"]["name"] for b in chat.requests]
    first = [b for b, s in zip(chat.requests, stages, strict=True) if s == "Cues"]
    second = [b for b in chat.requests if "These cues set it apart: (1) it lies further up" in question(b)]
    assert first and len(first) == len(second)
    pixels = picture(first[0])
    named = re.findall(r"red|blue|yellow", question(first[0]))
    for name, colour in COLOURS:
        assert (pixels == colour).all(-1).any() == (name in named)


def test_a_question_that_names_its_category_is_dropped(chat, tmp_path):
    chat.answers["QuestionAndReason"] = {
        "question": "Where is the building, the ship?",
        "explanation": "There.",
    }
    stages = {s["name"]: s for s in build(tmp_path / "store", chat, judges=[])["stages"]}
    assert stages["reasoning"]["dropped"]["names_category"] > 0


@pytest.mark.slow
def test_a_build_goes_on_without_paying_twice_and_gives_the_same_bytes(chat, tmp_path):
    whole = build(tmp_path / "whole", chat, retries=0)
    asked = len({json.dumps(b, sort_keys=True) for b in chat.requests})
    chat.requests.clear()
    chat.faults.extend([*["ok"] * 15, *["500"] * 40])
    with pytest.raises(UserError, match="answered 500"):
        build(tmp_path / "broken", chat, retries=0)
    paid = len(chat.requests) - chat.statuses[500]
    chat.faults.clear()
    chat.requests.clear()
    result = build(tmp_path / "broken", chat, retries=0)
    assert len(chat.requests) <= asked - paid + 1 and result["samples"] == whole["samples"]
    for name in ("shards/train-00000.tar", "index.parquet"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    chat.requests.clear()
    build(tmp_path / "third", chat, cache=str(tmp_path / "whole-answers"))
    assert not chat.requests


def test_regions_of_several_tiles_are_under_way_at_a_time(chat, tmp_path):
    many = threading.Event()

    def held(body):  # until more requests are under way than one tile has regions
        if chat.busiest > 8:
            many.set()
        many.wait(20)
        return ANSWERS["Phrase"]

    chat.answers["Phrase"] = held
    build(tmp_path / "store", chat, scenes=4, images=4, concurrency=16, judges=[], timeout_s=60)
    assert 8 < chat.busiest <= 16


def test_no_question_is_paid_for_that_the_diversity_rule_leaves_out(chat, tmp_path):
    result = build(tmp_path / "store", chat, scenes=6, instruct={"diversity_quantile": 0.9}, judges=[])
    stages = {s["name"]: s for s in result["stages"]}
    assert stages["reasoning"]["dropped"]["low_diversity"] > 0
    assert stages["diversity"]["dropped"] == {} and stages["diversity"]["out"] == stages["reasoning"]["out"]
    asked = sum(schema_of(b)["name"] == "QuestionAndReason" for b in chat.requests)
    assert asked == result["samples"]["reasoning"] > 0


def test_two_threads_with_one_question_pay_once(chat, tmp_path):
    chat.delay, client = 0.1, endpoint(chat, tmp_path)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: ask(client), range(4)))
    assert len(chat.requests) == 1 and len(set(found)) == 1
    assert (client.usage.requests, client.usage.cached, client.usage.cached_prompt_tokens) == (1, 3, 300)


def test_an_answer_that_was_kept_first_stays(tmp_path):
    cache = AnswerCache(str(tmp_path))
    assert cache.put("abc", {"content": "first"}) == cache.put("abc", {"content": "second"})
    assert cache.get("abc") == {"content": "first"}


def test_schemas_hold_only_what_strict_mode_takes(chat, tmp_path):
    build(tmp_path / "store", chat)
    sent = {schema_of(b)["name"]: schema_of(b) for b in chat.requests}
    assert set(sent) == set(ANSWERS)
    for form in sent.values():
        assert form["strict"] and form["schema"]["additionalProperties"] is False
        assert form["schema"]["required"] == list(form["schema"]["properties"])
        assert not re.search(r"(min|max)(Length|Items|imum)", json.dumps(form))
    judged = [question(b) for b in chat.requests if schema_of(b)["name"] == "SampleVerdict"]
    assert any('explanation given is: "It is of use."' in text for text in judged)


def test_text_that_training_could_not_read_is_dropped(chat, tmp_path):
    chat.answers["Phrase"] = {"phrase": "The <seg> thing over there."}
    stages = {s["name"]: s for s in build(tmp_path / "store", chat, judges=[])["stages"]}
    assert stages["referring"]["dropped"] == {"reserved_token": stages["referring"]["in"]}


def test_the_configuration_holds_no_secret_and_decides_the_hash():
    for wrong in ({"key_env": "sk-123"}, {"base_url": "http://me:pw@host/v1"}, {"base_url": "ftp://host"}):
        with pytest.raises(ValidationError):
            EndpointConfig(model="m", **wrong)

    def hashed(**settings):
        return config_hash("s", BuildConfig(endpoint=settings))

    plain = hashed(model="m")
    for other in ({"judges": ["j"]}, {"temperature": 0.5}, {"detail": "low"}, {"max_tokens": 99}):
        assert hashed(model="m", **other) != plain
    assert hashed() != plain != hashed(model="n")
    assert hashed(model="m", base_url="http://x/v1", concurrency=3, cache="c", max_cost=1.0) == plain


def test_requests_under_way_are_bounded(chat, tmp_path):
    chat.delay = 0.02
    build(tmp_path / "store", chat, scenes=1, concurrency=3)
    assert 2 <= chat.busiest <= 3


def test_too_dear_a_build_is_refused_before_the_first_request(chat, tmp_path):
    with pytest.raises(UserError, match=r"about \$.*endpoint.max_cost is \$0.00"):
        build(tmp_path / "store", chat, max_cost=0.0001)
    assert not chat.requests and not (tmp_path / "store").exists()


def test_the_command_builds_with_an_endpoint(chat, tmp_path, caplog):
    out = tmp_path / "store"
    sets = ["source.scenes=1", "workers=0", "endpoint.model=writer", "endpoint.judges=[a, b]"]
    sets += [f"endpoint.base_url={chat.url}", "instruct.diversity_quantile=0"]
    arguments = ["data", "build", "--source", "synthetic", "--out", str(out), "--json"]
    done = CliRunner().invoke(data, [*arguments[1:], *(word for text in sets for word in ("--set", text))])
    assert done.exit_code == 0, done.exception
    result = json.loads(done.stdout)
    assert result["endpoint"]["actual"]["requests"] == len(chat.requests) > 0
    assert "endpoint: about" in caplog.text and result["samples"]["reasoning"] > 0


def test_outlines_leave_the_regions_untouched():
    pixels = np.full((60, 60, 3), 90, np.uint8)
    regions = [
        Region(25, 10, 10, 20, 20, np.ones((10, 10), bool)),
        Region(25, 22, 10, 30, 20, np.ones((8, 10), bool)),
    ]
    drawn = outlined(pixels, regions)
    for region in regions:
        assert (drawn[region.window] == 90).all()
    changed = (drawn != 90).any(-1)
    assert changed.any() and changed.sum() < 200
    assert (drawn[9, 15] == (255, 0, 0)).all() and (drawn[31, 15] == (0, 90, 255)).all()
    assert image_tokens(512, 512, "high") == 255 and image_tokens(1024, 1024, "high") == 765
    assert image_tokens(4096, 2048, "low") == 85
