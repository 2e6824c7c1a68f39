"""Conversations with distilabel: one `generate_outputs` call over all conversations per turn.

    python distilabel_driver.py --url http://127.0.0.1:8000/v1 --conversations 500

Run it with a Python that has `requirements/distilabel.txt`. distilabel has no limit on requests in flight of its own,
so `--in-flight` is the number of conversations handed to one call.
"""

import argparse
import json
import os
import time
from importlib.metadata import version
from typing import Any

os.environ.update(NO_PROXY="127.0.0.1,localhost", HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1")

from distilabel.models.llms import OpenAILLM

ROUNDS = 3
IN_FLIGHT = 100
"""The fastest of the values tried."""

USER = "You are a customer who wants to book a table for two."
ASSISTANT = "You are the assistant of a restaurant."
OPENING = "Hello, how can I help?"


def main() -> None:
    """Warm up, run the conversations and print the result as one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--conversations", type=int, default=500)
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT)
    options = parser.parse_args()
    llm = OpenAILLM(model="m", base_url=options.url, api_key="none", max_retries=0)
    llm.load()
    converse(llm, 1, 1)
    start = time.perf_counter()
    requests = converse(llm, options.conversations, options.in_flight)
    seconds = time.perf_counter() - start
    result = {
        "library": "distilabel",
        "version": version("distilabel"),
        "conversations": options.conversations,
        "requests": requests,
        "seconds": seconds,
        "setting": f"OpenAILLM.generate_outputs, {min(options.in_flight, options.conversations)} inputs a call",
    }
    print(json.dumps(result))


def converse(llm: Any, conversations: int, in_flight: int) -> int:
    """Hold the conversations turn by turn; the number of requests (retries are off, so one for each input)."""
    texts: list[list[str]] = [[] for _ in range(conversations)]
    requests = 0
    for turn in range(2 * ROUNDS):
        inputs = [user_view(said) if turn % 2 == 0 else assistant_view(said) for said in texts]
        outputs: list[Any] = []
        for first in range(0, conversations, in_flight):
            outputs += llm.generate_outputs(inputs=inputs[first : first + in_flight])
        for said, output in zip(texts, outputs, strict=True):
            said.append(output["generations"][0])
        requests += len(inputs)
    return requests


def user_view(said: list[str]) -> list[dict[str, str]]:
    """The messages for the user's next turn: its own turns are the model's."""
    heard = [{"role": "system", "content": USER}, {"role": "user", "content": OPENING}]
    return heard + [{"role": "user" if i % 2 else "assistant", "content": text} for i, text in enumerate(said)]


def assistant_view(said: list[str]) -> list[dict[str, str]]:
    """The messages for the assistant's next turn."""
    turns = [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)]
    return [{"role": "system", "content": ASSISTANT}, *turns]


if __name__ == "__main__":
    main()
