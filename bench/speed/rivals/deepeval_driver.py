"""Conversations with deepeval's `ConversationSimulator`, its model and the assistant both on the server.

    python deepeval_driver.py --url http://127.0.0.1:8000/v1 --conversations 500

Run it with a Python that has `requirements/deepeval.txt`. `--in-flight` is `max_concurrent`, conversations at once. The
goldens have no expected outcome, so the simulator asks no model whether to stop.
"""

import argparse
import json
import os
import time
from importlib.metadata import version
from typing import Any

os.environ.update(
    NO_PROXY="127.0.0.1,localhost",
    DO_NOT_TRACK="1",
    DEEPEVAL_TELEMETRY_OPT_OUT="1",
    DEEPEVAL_DISABLE_DOTENV="1",
    DEEPEVAL_UPDATE_WARNING_OPT_IN="0",
    CONFIDENT_TRACING_ENABLED="NO",
)

from deepeval.dataset import ConversationalGolden
from deepeval.models import DeepEvalBaseLLM
from deepeval.simulator import ConversationSimulator
from deepeval.test_case import Turn
from openai import AsyncOpenAI

ROUNDS = 3
IN_FLIGHT = 50
"""The fastest of the values tried."""

USER = "A customer wants to book a table for two."
ASSISTANT = "You are the assistant of a restaurant."


class Server:
    """The server's chat completions, counted; retries are off, so a call is one request."""

    def __init__(self, url: str) -> None:
        self._client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        self.requests = 0

    async def ask(self, messages: Any) -> str:
        """The reply to these messages."""
        self.requests += 1
        completion = await self._client.chat.completions.create(model="m", messages=messages)
        return completion.choices[0].message.content or ""


class SimulatorModel(DeepEvalBaseLLM):  # type: ignore[misc]
    """The simulator's model; the server answers in plain text, which fills the fields of the asked schema."""

    def __init__(self, server: Server) -> None:
        self._server = server
        super().__init__("m")

    def load_model(self) -> Any:
        """Nothing to load."""
        return self

    def generate(self, prompt: str, schema: Any = None) -> Any:
        """Not used in async mode."""
        raise NotImplementedError

    async def a_generate(self, prompt: str, schema: Any = None) -> Any:
        """The server's text as an instance of the schema."""
        text = await self._server.ask([{"role": "user", "content": prompt}])
        return text if schema is None else schema(**dict.fromkeys(schema.model_fields, text))

    def get_model_name(self) -> str:
        """The name shown in the progress bar."""
        return "m"


def main() -> None:
    """Warm up, run the conversations and print the result as one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--conversations", type=int, default=500)
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT)
    options = parser.parse_args()
    server = Server(options.url)

    async def assistant(input: str, turns: Any) -> Any:
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        reply = await server.ask([{"role": "system", "content": ASSISTANT}, *messages])
        return Turn(role="assistant", content=reply)

    simulator = ConversationSimulator(
        model_callback=assistant, simulator_model=SimulatorModel(server), max_concurrent=options.in_flight
    )
    simulator.simulate([ConversationalGolden(scenario=USER)], max_user_simulations=ROUNDS)
    goldens = [ConversationalGolden(scenario=USER) for _ in range(options.conversations)]
    server.requests = 0
    start = time.perf_counter()
    done = simulator.simulate(goldens, max_user_simulations=ROUNDS)
    seconds = time.perf_counter() - start
    if [len(case.turns) for case in done] != [2 * ROUNDS] * options.conversations:
        raise SystemExit("some conversations are incomplete")
    result = {
        "library": "deepeval",
        "version": version("deepeval"),
        "conversations": options.conversations,
        "requests": server.requests,
        "seconds": seconds,
        "setting": f"ConversationSimulator, async, max_concurrent={options.in_flight}",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
