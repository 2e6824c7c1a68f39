import contextlib
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from source_rows import read_rows

from selfplay.data.loading import load
from selfplay.data.raw_rows import BATCH_ROWS
from selfplay.data.reading import read_batches
from selfplay.errors import DataError

ROW = {"id": "a", "messages": [{"role": "user", "content": "hi 😀"}, {"role": "assistant", "content": "ja — “so”"}]}
LINE = json.dumps(ROW, ensure_ascii=False).encode()


def write(path, content):
    path.write_bytes(content)
    return path


def values(path):
    return [row.value() for row in read_rows(path)]


def errors(path):
    return [(row.place, row.error) for row in read_rows(path) if row.error]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINE + b"\n" + LINE),
        ("a.jsonl", b"\xef\xbb\xbf" + LINE + b"\r\n\r\n" + LINE + b"\r\n"),
        ("a.jsonl.gz", gzip.compress(LINE + b"\n") + gzip.compress(LINE)),
        ("a.jsonl.zst", zstd.compress(LINE + b"\n") + zstd.compress(LINE)),
        ("a.json", b"\xef\xbb\xbf[" + LINE + b", " + LINE + b"]"),
        ("a.json.gz", gzip.compress(b"\n\n [" + LINE + b",\n" + LINE + b"\n]")),
        ("a.json", json.dumps([ROW, ROW], indent=2).encode()),
        ("a.json", LINE + b"\n" + LINE),
    ],
)
def test_the_same_rows_come_out_of_every_kind_of_json_file(tmp_path, name, content):
    assert values(write(tmp_path / name, content)) == [ROW, ROW]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_map_gives_its_values_with_their_keys_as_ids(tmp_path, indent):
    content = json.dumps({"x": {"log": []}, "y": {"log": [], "id": "own"}}, indent=indent).encode()
    assert values(write(tmp_path / "a.json", content)) == [{"id": "x", "log": []}, {"id": "own", "log": []}]


def test_splits_or_categories_give_the_rows_of_their_lists(tmp_path):
    content = json.dumps({"train": [{"a": 1}, {"a": 2}], "dev": [{"a": 3}]}, indent=1).encode()
    assert values(write(tmp_path / "a.json", content)) == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_json_lines_under_the_wrong_name_may_be_long(tmp_path):
    rows = [{"id": str(number), "text": "x" * 1_500_000} for number in range(3)]
    content = b"\n".join(json.dumps(row).encode() for row in rows)
    assert values(write(tmp_path / "a.json", content)) == rows


@pytest.mark.parametrize("row", [ROW, {"goal": {"a": {}}, "log": [{"text": "hi"}]}])
def test_a_json_file_may_be_one_row(tmp_path, row):
    assert values(write(tmp_path / "a.json", json.dumps(row, indent=1).encode())) == [row]
    assert values(write(tmp_path / "b.json", json.dumps(row).encode())) == [row]


def test_a_map_longer_than_the_look_ahead_is_a_map(tmp_path):
    content = json.dumps({str(number): {"text": "x" * 1000} for number in range(3000)}).encode()
    assert len(values(write(tmp_path / "a.json", content))) == 3000


def test_bare_lists_of_turns_and_bare_prompts_have_keys(tmp_path):
    content = json.dumps(ROW["messages"]).encode() + b'\n"what now?"\n'
    assert values(write(tmp_path / "a.jsonl", content)) == [{"messages": ROW["messages"]}, {"prompt": "what now?"}]


def test_tables_are_read_by_their_header(tmp_path):
    csv = b'\xef\xbb\xbfprompt,response\r\n"a, ""b""\nc",d\r\n'
    assert values(write(tmp_path / "a.csv", csv)) == [{"prompt": 'a, "b"\nc', "response": "d"}]
    assert values(write(tmp_path / "a.tsv.gz", gzip.compress(b'prompt\tresponse\n"a\td\n'))) == [
        {"prompt": '"a', "response": "d"}
    ]


def test_an_unnamed_index_column_is_a_column(tmp_path):
    assert values(write(tmp_path / "a.csv", b",prompt\n0,hi\n")) == [{"": "0", "prompt": "hi"}]


def test_a_table_without_a_header_has_numbered_columns(tmp_path):
    assert values(write(tmp_path / "a.tsv", b"<C><U>hi\t[A]yes\tdlg-1\n")) == [
        {"column_1": "<C><U>hi", "column_2": "[A]yes", "column_3": "dlg-1"}
    ]


def test_parquet_is_read(tmp_path):
    pq.write_table(pa.Table.from_pylist([ROW] * 600), tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == [ROW] * 600


def test_parquet_with_other_columns_shows_them(tmp_path):
    pq.write_table(pa.table({"what": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="found keys what"):
        load([str(tmp_path / "a.parquet")], strict=True)


def test_values_without_a_python_form_cost_their_row_alone(tmp_path):
    when = pa.array([0, 2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"prompt": ["a", "b"], "when": when}), tmp_path / "a.parquet")
    rows = list(read_rows(tmp_path / "a.parquet"))
    assert [row.error for row in rows] == [None, "a value that cannot be read (OverflowError)"]


def test_rows_nested_too_deeply_are_counted(tmp_path):
    deep = json.dumps([ROW, {"x": "DEEP"}]).replace('"DEEP"', "[" * 300 + "]" * 300)
    assert errors(write(tmp_path / "a.json", deep.encode())) == [("a.json:1", "nested too deeply")]


def test_bad_lines_are_counted_with_their_place_and_the_others_read(tmp_path):
    deep = b"[" * 100_000
    lines = [LINE, b"{oops", b"", b"3", b"\xff\xfe", deep, b"1" * 5000, LINE]
    file = write(tmp_path / "a.jsonl", b"\n".join(lines))
    assert values_of_good(file) == [ROW, ROW]
    assert errors(file) == [
        ("a.jsonl:2", "not JSON (Expecting property name enclosed in double quotes at column 2)"),
        ("a.jsonl:4", "a JSON int, expected an object"),
        ("a.jsonl:5", "not UTF-8"),
        ("a.jsonl:6", "nested too deeply"),
        ("a.jsonl:7", "not JSON (a number with too many digits)"),
    ]


def values_of_good(file):
    return [row.data for row in read_rows(file) if row.error is None]


def test_a_short_table_row_is_counted_with_its_line(tmp_path):
    file = write(tmp_path / "a.csv", b"prompt,response\na\nb,c\n")
    assert errors(file) == [("a.csv:2", "1 cells, expected 2 as in the header")]
    assert values_of_good(file) == [{"prompt": "b", "response": "c"}]


def test_turns_of_ten_megabytes_are_turns(tmp_path):
    row = {"messages": [{"role": "user", "content": "x" * 10_000_000}]}
    file = write(tmp_path / "a.jsonl", json.dumps(row).encode())
    assert len(load([str(file)]).conversations[0].turns[0].content) == 10_000_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "no rows"),
        ("a.json", b"", "no rows"),
        ("a.csv", b"", "no rows"),
        ("a.csv", b"\x00", "no rows"),
        ("a.json", b"  \n ", "no rows"),
        ("a.jsonl.gz", b"", "no rows"),
        ("a.json", b"{}", "found keys none"),
        ("a.csv", b'a,b\n1,"never closed\n2,3\n', "never closed"),
        ("a.json", b"[", "is the file whole"),
        ("a.json", b'[{"a": 1}, {"a"', "is the file whole"),
        ("a.json", b"[[[[" * 100_000, "is the file whole"),
        ("a.json", b"7", "expected a JSON array or map"),
        ("a.jsonl.gz", gzip.compress(b"{}\n" * 500)[:-9], "is the file whole"),
        ("a.jsonl.gz", b"no gzip", "is the file whole"),
        ("a.jsonl.zst", zstd.compress(LINE * 50)[:-5], "is the file whole"),
        ("a.parquet", b"PAR1 no", "is the file whole"),
        ("a.txt", b"hi", "cannot read .txt files; expected a file .json, .jsonl"),
        ("a.parquet.gz", b"", "cannot read .parquet.gz"),
    ],
)
def test_unusable_files_say_what_was_found_and_expected(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        load([str(write(tmp_path / name, content))])


def test_folders_and_missing_files_say_so(tmp_path):
    with pytest.raises(DataError, match="a folder; give the files in it one by one"):
        list(read_rows(tmp_path))
    with pytest.raises(DataError, match="no such file"):
        list(read_rows(tmp_path / "a.jsonl"))


def test_batches_are_small_and_know_how_far_they_are(tmp_path):
    file = write(tmp_path / "a.jsonl", (LINE + b"\n") * (3 * BATCH_ROWS))
    batches = list(read_batches(file))
    assert [len(batch.numbers) for batch in batches] == [BATCH_ROWS] * 3
    assert batches[-1].share == 1.0
    large = write(tmp_path / "b.json", json.dumps([{"text": "x" * 600_000}] * 5).encode())
    assert [len(batch.numbers) for batch in read_batches(large)] == [2, 2, 1]


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".jsonl.gz", ".json.zst", ".parquet"])
)
def test_any_bytes_are_rows_or_a_clear_error(tmp_path_factory, content, suffix):
    file = write(tmp_path_factory.getbasetemp() / f"any{suffix}", content)
    rows = []
    with contextlib.suppress(DataError):
        rows.extend(read_rows(file))
    assert all(row.place.startswith("any") and (row.data is None) == (row.error is not None) for row in rows)
