"""A build by command that is killed with SIGKILL while it pays, and started again with other workers."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.chat_server import ANSWERS, chat_server

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).parents[2]
CONCURRENCY, KEY = 4, "sk-very-secret"


def command(out, chat, workers, *more):
    sets = [f"workers={workers}", "block_images=2", "source.scenes=8", "instruct.diversity_quantile=0.5"]
    sets += ["endpoint.model=writer", "endpoint.judges=[a, b]", f"endpoint.base_url={chat.url}"]
    sets += [f"endpoint.concurrency={CONCURRENCY}"]
    options = [part for text in sets for part in ("--set", text)]
    return [
        sys.executable, "-m", "jobs.cli", "data", "build", "--source", "synthetic",
        "--out", str(out), "--json", *options, *more,
    ]  # fmt: skip


def run(*arguments):
    environment = os.environ | {"OPENAI_API_KEY": KEY}
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    return json.loads(done.stdout)


def contents(folder):
    files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def paid_questions(chat):
    return Counter(hashlib.sha256(json.dumps(b, sort_keys=True).encode()).hexdigest() for b in chat.requests)


def phrase(body):
    """Another text for each picture, and the same one whenever it is asked for."""
    digest = hashlib.sha256(json.dumps(body["messages"], sort_keys=True).encode()).hexdigest()
    return ANSWERS["Phrase"] | {"phrase": f"The thing that goes by the number {int(digest[:8], 16)}."}


def test_killed_while_it_pays_and_started_again(tmp_path):
    with chat_server() as chat:
        chat.answers["Phrase"] = phrase
        planned = run(tmp_path / "whole", chat, 0, "--dry-run")
        assert planned["endpoint"]["requests"] > 0 and not chat.requests
        whole = run(tmp_path / "whole", chat, 0)
        expected = contents(tmp_path / "whole")
        asked = paid_questions(chat)
        assert set(asked.values()) == {1}
        assert whole["endpoint"]["actual"]["requests"] == len(asked)
        chat.requests.clear()
        chat.delay, out = 0.05, tmp_path / "s"
        for kill_after, workers in ((len(asked) // 4, 1), (len(asked) // 2, 2)):
            process = subprocess.Popen(
                command(out, chat, workers),
                cwd=ROOT,
                start_new_session=True,
                env=os.environ | {"OPENAI_API_KEY": KEY},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while process.poll() is None and len(chat.requests) < kill_after:
                time.sleep(0.01)
            assert process.poll() is None, "it ended before it was killed"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        chat.delay = 0.0
        result = run(out, chat, 2)
        again = paid_questions(chat)
    assert set(again) == set(asked)
    # Only what was under way when it was killed can have been paid for nothing.
    assert sum(again.values()) - len(asked) <= 2 * CONCURRENCY
    assert contents(out) == expected and result["samples"] == whole["samples"]
    bill = result["endpoint"]["actual"]
    assert bill["requests"] + bill["cached"] == len(asked) and bill["cached"] > 0
    assert bill["prompt_tokens"] + bill["cached_prompt_tokens"] == 100 * len(asked)
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
