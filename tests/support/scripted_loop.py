"""A loop whose stages are scripted and slow; loop, ledger, lock and rules are real.

Every stage writes piece by piece, as the real ones do, and goes on with what is there.
"""

import json
import time
from contextlib import chdir
from functools import partial
from hashlib import blake2b
from pathlib import Path

from selfplay.files import replacing
from selfplay.loop.config import LoopConfig
from selfplay.loop.inputs import files_hash
from selfplay.loop.run import loop
from selfplay.loop.stages.stage import Job

CONVERSATIONS, STEPS, PAUSE = 16, 6, 0.004


def config(**changes):
    """Two iterations, the simulator trained in the first."""
    return LoopConfig.model_validate({"iterations": 2, "simulator": {"train": "first"}, **changes})


def drawn(*parts):
    """A number of [0, 1) that follows from what it is made from."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=6).digest(), "big") / 256**6


class ScriptedPlan:
    """Stands in for `selfplay.loop.plan.LoopPlan`."""

    def __init__(self, config, folder, say, watch=None, fails=None):
        self.config, self.folder, self.fails = config, folder, fails or {}

    def at(self, iteration, name):
        return self.folder / f"{iteration:03d}" / name

    def check(self):
        """Nothing to look for."""

    def job(self, iteration, stage):
        made = getattr(self, stage)(iteration)
        if made is None:
            return None
        inputs, output, work = made
        files = {path.name: files_hash([str(path)]) for path in inputs}
        settings = {"seed": self.config.seed, "iteration": iteration}

        def checked():
            if (error := self.fails.pop((iteration, stage), None)) is not None:
                raise error
            return work(output, *inputs)

        return Job(iteration, stage, {"settings": settings, "inputs": files}, output, checked)

    def simulator(self, iteration):
        return ([], self.at(1, "simulator"), self.train) if iteration == 1 else None

    def generate(self, iteration):
        if not iteration:
            return None
        inputs = [self.at(1, "simulator") / "model.json", self.model(iteration - 1)]
        return inputs, self.at(iteration, "run"), self.talk

    def curate(self, iteration):
        return (
            ([self.at(iteration, "run") / "run.jsonl"], self.at(iteration, "kept.jsonl"), self.keep)
            if iteration
            else None
        )

    def assistant(self, iteration):
        if not iteration:
            return None
        return (
            [self.at(iteration, "kept.jsonl"), self.model(iteration - 1)],
            self.at(iteration, "assistant"),
            self.train,
        )

    def bench(self, iteration):
        run = [self.at(iteration, "run") / "run.jsonl"] if iteration else []
        return [self.model(iteration), *run], self.at(iteration, "bench"), self.score

    def model(self, iteration):
        return self.at(iteration, "assistant") / "model.json" if iteration else self.folder / "first.json"

    def talk(self, out, *inputs):
        """A conversation a line; a line that was cut is taken back."""
        out.mkdir(parents=True, exist_ok=True)
        path = out / "run.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        path.write_bytes(b"".join(whole))
        said = [round(drawn(files_hash(list(map(str, inputs))), number), 6) for number in range(CONVERSATIONS)]
        with path.open("ab", buffering=0) as file:
            for number in range(len(whole), CONVERSATIONS):
                turns = [
                    ("user", f"May I ask about {said[number]}?"),
                    ("assistant", f"Of course, {said[number] * 7:.3f}."),
                ]
                row = {"id": f"c{number}", "messages": [{"role": role, "content": text} for role, text in turns]}
                line = (
                    json.dumps({**row, "ended": "user_ended" if said[number] > 0.1 else "max_rounds"}).encode() + b"\n"
                )
                file.write(line[:20])
                time.sleep(PAUSE)
                file.write(line[20:])
        return {"conversations": CONVERSATIONS, "rounds": 1, "tokens": 1000}

    def keep(self, out, run):
        """Lines one after the other into a file that takes the output's place at the end."""
        rows = run.read_bytes().splitlines(keepends=True)
        kept = [row for row in rows if json.loads(row)["ended"] == "user_ended"]
        with replacing(out) as partial, partial.open("wb", buffering=0) as file:
            for row in kept:
                file.write(row)
                time.sleep(PAUSE)
        left = {
            "rows_before": len(rows),
            "rows_after": len(kept),
            "reasons": {"ended: max_rounds": len(rows) - len(kept)},
        }
        report = {"sources": [str(run)], "kept": len(kept), "conversations": len(rows), "steps": {"ending": left}}
        with replacing(out.with_name(f"{out.name}.report.json")) as partial:
            partial.write_text(json.dumps(report), encoding="utf-8")
        return {"conversations": len(rows), "kept": len(kept)}

    def train(self, out, *inputs):
        """Checkpoints step by step; the model comes from the inputs and the last step."""
        checkpoints = out / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        if not (out / "model.json").exists():
            done = len(list(checkpoints.glob("*.json")))
            for step in range(done, STEPS):
                with replacing(checkpoints / f"{step:03d}.json") as partial:
                    partial.write_text(str(step), encoding="utf-8")
                time.sleep(PAUSE)
            weights = drawn(files_hash(list(map(str, inputs))), len(list(checkpoints.glob("*.json"))))
            with replacing(out / "model.json") as partial:
                partial.write_text(json.dumps(weights), encoding="utf-8")
        loss = 2 + json.loads((out / "model.json").read_text()) / 10
        return {"trained_on": 40, "steps": STEPS, "eval_loss": loss, "tokens": 2000, "human_share": 0.5}

    def score(self, out, model, run=None):
        out.mkdir(parents=True, exist_ok=True)
        value = 0.8 - (0.01 if run is None else 0.02 * drawn(files_hash([str(model)])))
        figures = {"bits_per_byte": [value, value - 0.03, value + 0.03]}
        if run is not None:
            rounds = 7 + drawn(files_hash([str(run)]))
            users = {
                "naturalness_auc": [0.6, 0.58, 0.62],
                "distinct_2": [0.4, 0.38, 0.42],
                "rounds": [rounds, rounds - 0.3, rounds + 0.3],
            }
            figures |= {
                "gain": [0.01, 0.002, 0.018],
                **users,
                "people": {"distinct_2": [0.39, 0.38, 0.4], "rounds": [7.5, 7.3, 7.7]},
            }
        time.sleep(PAUSE * 5)
        with replacing(out / "scores.json") as partial:
            partial.write_text(json.dumps(figures), encoding="utf-8")
        return figures


def run(folder, fails=None, say=lambda line: None, **changes):
    """A scripted loop in this process.

    Args:
        fails: by (iteration, stage) the error that stage meets once.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "first.json").write_text("0.5", encoding="utf-8")
    with chdir(folder):  # reports name the files they are of
        return loop(config(**changes), ".", say, make_plan=partial(ScriptedPlan, fails=fails))
