"""Conversations with NVIDIA's data-designer: one record each, six text columns that refer to the earlier ones.

    python data_designer_driver.py --url http://127.0.0.1:8000/v1 --conversations 500

Run it with a Python that has `requirements/data_designer.txt`. `--in-flight` is `max_parallel_requests`. The clock
stops when the last batch of records is written: the statistics that follow are no part of the conversations.
"""

import argparse
import atexit
import json
import os
import shutil
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(
    NO_PROXY="127.0.0.1,localhost",
    DO_NOT_TRACK="1",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    NEMO_TELEMETRY_ENABLED="false",
    DATA_DESIGNER_HOME=tempfile.mkdtemp(),
    DATA_DESIGNER_SKIP_MODEL_HEALTH_CHECKS="1",
)

import data_designer.config as dd
import tiktoken
from data_designer.interface import DataDesigner

ROUNDS = 3
IN_FLIGHT = 50
"""The fastest of the values tried."""

USER = "You are a customer who wants to book a table for two."
ASSISTANT = "You are the assistant of a restaurant."


def main() -> None:
    """Warm up, run the conversations and print the result as one JSON line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", required=True)
    parser.add_argument("--conversations", type=int, default=500)
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT)
    options = parser.parse_args()
    keep_tokeniser_local()
    home = Path(os.environ["DATA_DESIGNER_HOME"])
    atexit.register(shutil.rmtree, home)
    designer = DataDesigner(
        artifact_path=home / "artifacts",
        model_providers=[dd.ModelProvider(name="local", endpoint=options.url, api_key="none")],
        auto_configure_logging=False,
    )
    designer.set_run_config(dd.RunConfig(otel_metrics_port=None))
    columns = conversation_columns(options.in_flight)
    written: list[float] = []

    def note_time(_: Path) -> None:
        written.append(time.perf_counter())

    designer.create(columns, num_records=2, dataset_name="warm", on_batch_complete=note_time)
    start = time.perf_counter()
    done = designer.create(columns, num_records=options.conversations, on_batch_complete=note_time)
    if len(done.load_dataset()) != options.conversations:
        raise SystemExit("some conversations are missing")
    result = {
        "library": "data-designer",
        "version": version("data-designer"),
        "conversations": options.conversations,
        "requests": None,
        "seconds": written[-1] - start,
        "setting": f"create, max_parallel_requests={options.in_flight}",
    }
    print(json.dumps(result))


def conversation_columns(in_flight: int) -> Any:
    """The columns user1, assistant1 to user3, assistant3; each prompt holds all the earlier ones."""
    parameters = dd.ChatCompletionInferenceParams(max_parallel_requests=in_flight)
    model = dd.ModelConfig(alias="m", model="m", provider="local", inference_parameters=parameters)
    builder = dd.DataDesignerConfigBuilder(model_configs=[model])
    prompt = "The conversation so far:"
    for number in range(1, ROUNDS + 1):
        for role, character in (("user", USER), ("assistant", ASSISTANT)):
            name = f"{role}{number}"
            builder.add_column(
                dd.LLMTextColumnConfig(name=name, model_alias="m", system_prompt=character, prompt=f"{prompt}\n{role}:")
            )
            prompt += f"\n{role}: {{{{ {name} }}}}"
    return builder


def keep_tokeniser_local() -> None:
    """Give the column statistics a tokeniser of single bytes, as the one they ask for would be downloaded."""
    ranks = {bytes([value]): value for value in range(256)}
    tiktoken.registry.ENCODINGS["cl100k_base"] = tiktoken.Encoding(
        "cl100k_base", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={}
    )


if __name__ == "__main__":
    main()
