"""FastChat reads what we write, and we read what FastChat writes: the same figures to the last digit it prints."""

import json
import re
import subprocess
import sys

from judge_files import Judge, bench, data_folder, judging, write_lines

from selfplay import app


def show_result(folder, name, mode, *arguments):
    """FastChat's own figures, as it prints them: model → numbers as text."""
    command = [sys.executable, "-m", "fastchat.llm_judge.show_result", "--mode", mode, "--bench-name", name, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    parts = re.split(r"#{10} (.*) #{10}", done.stdout)
    tables = dict(zip(["", *parts[1::2]], parts[::2], strict=True))
    return {
        title: {
            line.split()[0]: [float(cell) for cell in line.split()[1:]] for line in text.splitlines() if figures(line)
        }
        for title, text in tables.items()
    }


def figures(line):
    return re.fullmatch(r"\S+(\s+[\d.]+)+", line.rstrip())


def hand_made(folder):
    """Judgments in FastChat's schema with ties, errors, scores of -1, halves, and rows that come twice."""
    singles = [
        {"question_id": n, "model": model, "judge": ["gpt-4", "single-v1"], "user_prompt": "p", "judgment": "j",
         "score": score, "turn": turn, "tstamp": 1.0}
        for model, shift in (("one", 0), ("two", 3), ("three", 5))
        for n in range(81, 95)
        for turn in (1, 2)
        for score in [-1 if (n + turn + shift) % 7 == 0 else (n * turn + shift) % 10 + 0.5 * (n % 2)]
    ]  # fmt: skip
    winners = ["model_1", "model_2", "tie", "error"]
    pairs = [
        {"question_id": n, "model_1": one, "model_2": two, "g1_winner": winners[(n + len(one)) % 4],
         "g2_winner": winners[(n // 2 + len(two)) % 4], "judge": ["gpt-4", "pair-v2"], "g1_user_prompt": "p",
         "g1_judgment": "j", "g2_user_prompt": "p", "g2_judgment": "j", "turn": 1, "tstamp": 1.0}
        for one, two in (("one", "two"), ("one", "three"), ("two", "three"))
        for n in range(81, 120)
    ]  # fmt: skip
    write_lines(folder / "mt_bench/model_judgment/gpt-4_single.jsonl", [*singles, singles[1]])
    write_lines(folder / "mt_bench/model_judgment/gpt-4_pair.jsonl", pairs)
    write_lines(folder / "mt_bench/set.json", [])
    (folder / "mt_bench/set.json").write_text(json.dumps({"title": "T", "categories": {}, "baseline": "two"}))


def same_figures(data):
    """Our reports of a FastChat folder against what FastChat prints of it, in all three modes."""
    reports = {report.mode: report for report in app.report_judgments(data / "mt_bench")}
    judge = next(iter(reports.values())).judge
    common = ["--judge-model", judge]
    theirs = show_result(data.parent, "mt_bench", "single", *common)
    for graded in reports["single"].graded:
        assert theirs["First turn"][graded.model] == [1, round(graded.turns[1].value, 6)]
        assert theirs["Second turn"][graded.model] == [2, round(graded.turns[2].value, 6)]
        assert theirs["Average"][graded.model] == [round(graded.overall.value, 6)]
    for mode, more in (("pairwise-all", []), ("pairwise-baseline", ["--baseline-model", "two"])):
        theirs = show_result(data.parent, "mt_bench", mode, *common, *more)[""]
        ours = reports["pairwise-baseline_two" if more else mode].compared
        assert {found.model for found in ours} == {*theirs}
        for found in ours:
            counts = [found.wins, found.losses, found.ties]
            rates = [round(rate.value, 6) for rate in (found.win_rate, found.loss_rate, found.adjusted)]
            assert theirs[found.model] == [*counts, *rates], mode
    return reports


def test_judgments_of_fastchats_schema_get_the_figures_fastchat_prints(tmp_path):
    hand_made(tmp_path / "data")
    reports = same_figures(tmp_path / "data")
    assert reports["single"].unjudged["not said"] > 0
    assert reports["pairwise-all"].unjudged["not said"] > 0


def test_fastchat_prints_our_figures_of_what_we_write(tmp_path):
    data, out = data_folder(tmp_path / "given", questions=20), tmp_path / "data"
    with judging(Judge(garbage=0.4)) as url:
        models = {"one": url, "two": url, "three": url}
        bench(data, out, url, models=models)
        bench(data, out, url, models=models, mode="pairwise-all", baseline="two")
    reports = same_figures(out)
    assert reports["single"].unjudged["unparsed"] > 0
    assert reports["pairwise-all"].unjudged["unparsed"] > 0
    assert (out / "mt_bench/report/scripted_pairwise-all_wins.svg").exists()
