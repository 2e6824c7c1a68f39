"""A small FastChat data folder, and a server that answers and judges, for tests of judged benchmarks."""

import asyncio
import json
import threading
from collections import Counter
from contextlib import contextmanager
from hashlib import blake2b

from selfplay import app
from selfplay.recipe import validated
from selfplay.serve.scripted_server import ScriptedServer

CATEGORIES = ("writing", "math", "coding", "roleplay")
FAST = {"timeout": 0.5, "first_delay": 0.01}
NAMES = ("single-v1", "single-math-v1", "pair-v2", "pair-math-v1")


def write_lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def data_folder(folder, questions=8, turns=2):
    """Questions 1 to n over four categories, reference answers, and judge prompts under FastChat's names."""
    rows = [
        {"question_id": n, "category": CATEGORIES[n % 4], "turns": [f"Question {n}, turn {t}?" for t in (1, 2)][:turns]}
        for n in range(1, questions + 1)
    ]
    references = [
        {"question_id": n, "choices": [{"index": 0, "turns": [f"Reference {n}, {t}." for t in (1, 2)][:turns]}]}
        for n in range(1, questions + 1)
        if CATEGORIES[n % 4] in ("math", "coding")
    ]
    write_lines(folder / "mt_bench/question.jsonl", rows)
    write_lines(folder / "mt_bench/reference_answer/gpt-4.jsonl", references)
    write_lines(folder / "judge_prompts.jsonl", [_prompt(name, second) for name in NAMES for second in (False, True)])
    return folder


def _prompt(name, second):
    single = name.startswith("single")
    sides = ["answer"] if single else ["answer_a", "answer_b"]
    numbers = ["_1", "_2"] if second else [""]
    fields = [f"{side}{number}" for side in ["question", *sides] for number in numbers]
    if "math" in name:
        fields += ["ref_answer_1", "ref_answer_2"][: 1 + second]
    return {
        "name": f"{name}-multi-turn" if second else name,
        "type": "single" if single else "pairwise",
        "system_prompt": "You judge.",
        "prompt_template": "\n".join(f"{field}: {{{field}}}" for field in fields),
        "output_format": "[[rating]]" if single else "[[A]]",
    }


def hashed(*parts):
    return int.from_bytes(blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=4).digest())


class Judge:
    """What the server says, and how often it was asked each thing and did answer."""

    def __init__(self, garbage=0.0):
        self.garbage = garbage
        self.asked = Counter()

    def __call__(self, body):
        text, system = body["messages"][-1]["content"], body["messages"][0]["content"]
        judges = "judge" in f"{system} {text}"
        self.asked["judge" if judges else "", text] += 1
        if not judges:
            return f"An answer of {len(text)} letters to {text[:14]}"
        if hashed(body) % 1000 < 1000 * self.garbage:
            return "I would rather not say."
        if "answer_a" in text or "[[A]]" in system:
            return f"So. [[{'ABC'[hashed(text) % 3]}]]"
        return f"Fine. Rating: [[{1 + hashed(text) % 10}]]"


@contextmanager
def serving(server):
    """A scripted server in a thread; its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def judging(judge=None, **options):
    """A judge that is up; its URL."""
    with serving(ScriptedServer(reply=judge or Judge(), **options)) as url:
        yield url


def bench(data, out, url, *, say=lambda line: None, dry_run=False, **settings):
    values = {"set": "mt-bench", "data": str(data), "models": {"m": url}, "judge": url, **settings}
    values.setdefault("endpoint", FAST)
    values.setdefault("judge_endpoint", FAST)
    return app.judge_questions(validated(app.JudgeConfig, values, "test"), out, say=say, dry_run=dry_run)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]
