import json
import os
import signal
import subprocess
import sys
import time

import pyarrow.parquet as pq
import pytest
from source_rows import ROWS

from selfplay import app
from selfplay.data.cleaning.config import CleanConfig
from selfplay.data.loading import load
from selfplay.errors import BadRow, ConfigError, DataError

SHAREGPT = ROWS["sharegpt"][0]


def write(path, rows):
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(path)


def talk(id, *texts):
    turns = [{"from": ("human", "gpt")[n % 2], "value": text} for n, text in enumerate(texts)]
    return {"id": id, "conversations": turns}


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def many(path, count=3000):
    words = [f"word{number}" for number in range(500)]
    rows = [
        talk(f"t{n}", *(" ".join(words[(n * 7 + t) % 400 :][:40]) + f" {n % 2900}" for t in range(4)))
        for n in range(count)
    ]
    return write(path, rows)


def test_rows_come_out_clean_counted_and_in_order(tmp_path):
    rows = [talk("a", "hi\n1 / 1", "<p>hello</p>"), "{oops\n", talk("b", "hi", "hello"), talk("c", "bye", "see you")]
    tally = app.clean([write(tmp_path / "in.jsonl", rows)], tmp_path / "out.jsonl")
    out = read(tmp_path / "out.jsonl")
    assert [row["id"] for row in out] == ["a", "c"]
    assert out[0]["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert tally.rows == 4
    report = json.loads((tmp_path / "out.jsonl.report.json").read_text())
    assert report["refused"] == {
        "not JSON (Expecting property name enclosed in double quotes)": {"rows": 1, "first": "in.jsonl:2"}
    }
    assert report["steps"]["exact duplicates"]["reasons"] == {"repeats an earlier one": 1}
    assert [step["rows_after"] for step in report["steps"].values()] == [3, 3, 2]
    assert "| exact duplicates | 3 | 2 |" in (tmp_path / "out.jsonl.report.md").read_text()


def test_what_is_written_is_read_back_whole(tmp_path):
    rows = [talk("abcdefg_2", "go on", "yes", "thanks", "sure"), ROWS["sgd"][0]]
    sources = [write(tmp_path / f"{n}.jsonl", [row]) for n, row in enumerate(rows)]
    app.clean(sources, tmp_path / "out.jsonl")
    before, after = load(sources).conversations, load([str(tmp_path / "out.jsonl")]).conversations
    assert before == after
    assert after[0].context == 1
    assert after[1].meta["services"] == ["Hotels_1"]


def test_parquet_holds_the_same_conversations(tmp_path):
    """Whatever the first rows have: columns do not depend on them."""
    rows = [talk(f"t{n}", f"hi {n}", "hello") for n in range(1100)]
    mixed = write(tmp_path / "a.jsonl", [*rows, talk("abcdefg_2", "go on", "yes", "thanks", "sure")])
    sgd = write(tmp_path / "b.jsonl", [ROWS["sgd"][0]])
    for name in ("out.jsonl", "out.parquet"):
        app.clean([mixed, sgd], tmp_path / name)
    lines, parquet = (load([str(tmp_path / name)]).conversations for name in ("out.jsonl", "out.parquet"))
    assert lines == parquet
    assert [parquet[-2].context, parquet[-1].meta["services"]] == [1, ["Hotels_1"]]


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path):
    source = many(tmp_path / "in.jsonl", 1500)
    config = CleanConfig(near_duplicates=0.8, max_tokens=300, pii="mask", languages=("en",))
    tallies = [app.clean([source], tmp_path / f"{n}.jsonl", config, workers=n) for n in (1, 2)]
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert tallies[0].as_dict() == tallies[1].as_dict()
    assert len(read(tmp_path / "1.jsonl")) == list(tallies[0].steps.values())[-1].rows_after


def test_duplicates_are_found_across_files(tmp_path):
    sources = [write(tmp_path / f"{n}.jsonl", [SHAREGPT]) for n in range(3)]
    tally = app.clean(sources, tmp_path / "out.jsonl")
    assert tally.steps["exact duplicates"].rows_after == 1


def test_progress_reaches_the_end(tmp_path):
    seen = []
    app.clean(
        [many(tmp_path / "in.jsonl")],
        tmp_path / "out.jsonl",
        on_progress=lambda rows, share: seen.append((rows, share)),
    )
    assert seen[-1] == (3000, 1.0)
    assert seen == sorted(seen)


def test_a_source_may_hold_nothing_that_stays(tmp_path):
    source = write(tmp_path / "in.jsonl", [SHAREGPT])
    tally = app.clean([source], tmp_path / "out.jsonl", CleanConfig(min_rounds=5, near_duplicates=0.8))
    assert (tmp_path / "out.jsonl").read_text() == ""
    assert tally.steps["rounds"].rows_after == 0
    app.clean([source], tmp_path / "out.parquet", CleanConfig(min_rounds=5))
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_a_source_whose_first_rows_cannot_be_read_is_recognised_later(tmp_path):
    source = write(tmp_path / "in.jsonl", ["{oops\n"] * 600 + [SHAREGPT])
    tally = app.clean([source], tmp_path / "out.jsonl")
    assert (tally.rows, tally.conversations) == (601, 1)
    with pytest.raises(DataError, match=r"no row that can be read; the first: bad\.jsonl:1: not JSON"):
        app.clean([write(tmp_path / "bad.jsonl", ["{oops\n"] * 600)], tmp_path / "out.jsonl")


def test_nothing_but_the_table_happens_when_no_step_is_on(tmp_path):
    config = CleanConfig(html=False, artefacts=False, duplicates=False)
    tally = app.clean([write(tmp_path / "in.jsonl", [SHAREGPT] * 3)], tmp_path / "out.jsonl", config)
    assert (tally.rows, tally.conversations, tally.steps) == (3, 3, {})
    assert len(read(tmp_path / "out.jsonl")) == 3


def test_equal_last_pieces_of_different_talks_are_no_duplicates(tmp_path):
    talks = [talk(f"t{n}", f"question {n} " + "word " * 30, "answer " * 30, "thanks", "welcome") for n in range(5)]
    config = CleanConfig(max_tokens=80)
    tally = app.clean([write(tmp_path / "in.jsonl", [*talks, talks[0]])], tmp_path / "out.jsonl", config)
    count = tally.steps["exact duplicates"]
    assert (count.rows_before, count.rows_after) == (12, 10)


# Faults


def test_a_source_is_never_written_over(tmp_path):
    source = write(tmp_path / "in.jsonl", [SHAREGPT])
    before = (tmp_path / "in.jsonl").read_bytes()
    with pytest.raises(ConfigError, match="is the source itself; name another file"):
        app.clean([source], source)
    assert (tmp_path / "in.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    "row",
    [
        {**ROWS["messages"][0], "id": "\ud800"},
        {**ROWS["messages"][0], "group": "\ud800"},
        {**ROWS["messages"][0], "meta": {"note": "\ud800"}},
        {**ROWS["sgd"][0], "services": ["\ud800"]},
        {**ROWS["messages"][0], "meta": {"deep": "DEEP"}},
        {**ROWS["messages"][0], "messages": "{[]: 1}"},
    ],
)
@pytest.mark.parametrize("name", ["in.jsonl", "in.json"])
def test_strange_values_beside_the_turns_are_kept_or_counted(tmp_path, row, name):
    deep = "[" * 600 + "]" * 600
    good = next(
        good
        for good, _, _ in ROWS.values()
        if good.keys() & {"messages", "turns"} == row.keys() & {"messages", "turns"}
    )
    lines = [json.dumps(good), json.dumps(row).replace('"DEEP"', deep)]
    (tmp_path / name).write_text("\n".join(lines) if name == "in.jsonl" else f"[{','.join(lines)}]")
    for out in ("out.jsonl", "out.parquet"):
        tally = app.clean([str(tmp_path / name)], tmp_path / out, CleanConfig(duplicates=False))
        assert tally.refused.counts.total() + tally.conversations >= 2
        assert (tmp_path / f"{out}.report.md").exists()


def test_sigterm_leaves_no_half_file_and_no_worker(tmp_path):
    source = many(tmp_path / "in.jsonl", 30_000)
    command = [sys.executable, "-m", "selfplay.cli", "data", "clean", source, "--out", str(tmp_path / "out.jsonl")]
    process = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not lines_written(tmp_path):
        time.sleep(0.05)
    process.terminate()
    _, errors = process.communicate(timeout=60)  # ends when no process holds the pipe
    assert process.returncode == 143
    assert b"Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_strict_stops_at_the_first_bad_row_and_writes_nothing(tmp_path):
    source = write(tmp_path / "in.jsonl", [SHAREGPT, "{oops\n"])
    with pytest.raises(DataError, match=r"in\.jsonl:2: not JSON"):
        app.clean([source], tmp_path / "out.jsonl", CleanConfig(strict=True))
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_unknown_rows_show_their_keys_unless_the_format_is_given(tmp_path):
    source = write(tmp_path / "in.jsonl", [{"instructions": "a", "outputs": "b"}])
    with pytest.raises(DataError, match="found keys instructions, outputs; nearest: alpaca"):
        app.clean([source], tmp_path / "out.jsonl")
    with pytest.raises(DataError, match=r"no row of 1 became a conversation: field 'instruction' is missing"):
        app.clean([source], tmp_path / "out.jsonl", format="alpaca")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    with pytest.raises(ConfigError, match="unknown data format"):
        app.clean([source], tmp_path / "out.jsonl", format="alpacca")


def test_a_source_cut_off_in_the_middle_keeps_the_old_output(tmp_path):
    (tmp_path / "out.jsonl").write_text("old")
    source = tmp_path / "in.json"
    source.write_text("[" + json.dumps(SHAREGPT) + ", {")
    with pytest.raises(DataError, match="is the file whole"):
        app.clean([str(source)], tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.json", "out.jsonl"]


@pytest.mark.parametrize("name", ["out.csv", "out", "."])
def test_an_output_that_cannot_be_written_is_refused_first(tmp_path, name):
    source = write(tmp_path / "in.jsonl", [SHAREGPT])
    with pytest.raises(ConfigError, match=r"cannot write|is a folder"):
        app.clean([source], tmp_path / name)


def test_an_error_inside_a_worker_is_the_same_clear_error(tmp_path):
    source = tmp_path / "in.jsonl"
    many(source)
    source.write_text(source.read_text() + "{oops\n")
    with pytest.raises(DataError, match=r"in\.jsonl:3001: not JSON"):
        app.clean([str(source)], tmp_path / "out.jsonl", CleanConfig(strict=True), workers=2)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_bad_rows_cross_processes_with_their_counts():
    import pickle

    assert str(pickle.loads(pickle.dumps(BadRow("x")))) == "x"  # noqa: S301


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_leaves_no_half_file(tmp_path, workers):
    source = many(tmp_path / "in.jsonl", 30_000)
    command = [sys.executable, "-m", "selfplay.cli", "data", "clean", source, "--out", str(tmp_path / "out.jsonl")]
    process = subprocess.Popen([*command, "--workers", workers], stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not lines_written(tmp_path):
        time.sleep(0.05)
    assert lines_written(tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def lines_written(folder):
    return any(path.stat().st_size for path in folder.glob(".out.jsonl.*/lines"))


@pytest.mark.data
@pytest.mark.parametrize(
    ("sources", "rows"),
    [(["sharegpt_1k"], 952), (["hh_rlhf_helpful_base"], 2344), (["hh_rlhf_helpful_rejection_sampled"], 2748)],
)
def test_the_readme_counts_are_what_comes_out(tmp_path, sources, rows):
    tally = app.clean(sources, tmp_path / "out.jsonl")
    assert list(tally.steps.values())[-1].rows_after == rows
