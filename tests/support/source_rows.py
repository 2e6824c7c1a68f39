"""One row of every source schema, with the conversation it is: texts (user first), and whether it shows its end."""

from selfplay.data.reading import read_batches


def read_rows(path):
    """Every row of a file, decoded."""
    for batch in read_batches(path):
        yield from batch.rows()


HH = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: bye\n\nAssistant: see you"
OASST = {
    "message_tree_id": "t",
    "prompt": {
        "role": "prompter",
        "text": "q",
        "replies": [
            {"role": "assistant", "text": "worse", "rank": 1, "replies": []},
            {"role": "assistant", "text": "better", "rank": 0, "replies": [{"role": "prompter", "text": "thanks"}]},
        ],
    },
}
TURNS = ["hi", "hello", "bye", "see you"]
ROUND = ["hi", "hello"]
SHAREGPT = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]

ROWS = {
    "messages": ({"id": "a", "messages": MESSAGES}, ROUND, True),
    "wildchat": ({"conversation_hash": "a", "hashed_ip": "p", "conversation": MESSAGES}, ROUND, True),
    "sharegpt": ({"id": "abc", "conversations": SHAREGPT}, ROUND, True),
    "sharegpt_preference": (
        {"conversations": SHAREGPT[:1], "chosen": {"from": "gpt", "value": "hello"}, "rejected": {"value": "no"}},
        ROUND,
        False,
    ),
    "oasst": (OASST, ["q", "better", "thanks"], True),
    "hh_rlhf": ({"chosen": HH, "rejected": HH}, TURNS, False),
    "prompt_chosen": (
        {
            "prompt": "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: bye\n\nAssistant:",
            "chosen": " see you",
            "rejected": "",
        },
        TURNS,
        False,
    ),
    "webgpt": (
        {"question": {"full_text": "hi"}, "answer_0": "no", "answer_1": "hello", "score_0": -1.0, "score_1": 1.0},
        ROUND,
        False,
    ),
    "shp": ({"post_id": "p", "history": "hi", "human_ref_A": "hello", "human_ref_B": "no", "labels": 1}, ROUND, False),
    "gpt4_comparison": (
        {
            "user_input": "hi",
            "responses_and_scores": [{"response": "no", "score": 2}, {"response": "hello", "score": 9}],
        },
        ROUND,
        False,
    ),
    "alpaca": (
        {"instruction": "bye", "input": "", "output": "see you", "history": [["hi", "hello"]]},
        TURNS,
        False,
    ),
    "belle_multiturn": (
        {"instruction": "Human:hi\nAssistant:hello\nHuman:bye\nAssistant:\n", "input": "", "output": "see you"},
        TURNS,
        True,
    ),
    "gpteacher": ({"instruction": "hi", "input": "x", "response": "hello"}, ["hi\n\nx", "hello"], False),
    "dolly": ({"instruction": "hi", "context": "", "response": "hello", "category": "c"}, ROUND, False),
    "self_instruct": (
        {"id": "s", "name": "n", "instruction": "hi", "instances": [{"input": "x", "output": "hello"}]},
        ["hi\n\nx", "hello"],
        False,
    ),
    "natural_instructions": (
        {"Definition": ["hi"], "Instances": [{"id": "i", "input": "x", "output": ["hello"]}]},
        ["hi\n\nx", "hello"],
        False,
    ),
    "natural_flat": ({"id": "n", "definition": "hi", "inputs": "x", "targets": "hello"}, ["hi\n\nx", "hello"], False),
    "prompt_response": ({"prompt": "hi", "response": "hello", "source": ""}, ROUND, False),
    "prompt_completion": ({"prompt": "hi", "completion": "hello"}, ROUND, False),
    "question_answer": ({"question": "hi", "answer": "hello"}, ROUND, False),
    "prompts": ({"prompt": "hi"}, ["hi"], False),
    "instruction_prompts": ({"instruction": "hi"}, ["hi"], False),
    "hc3": (
        {"question": "hi", "human_answers": ["no"], "chatgpt_answers": ["hello", "x"], "source": "s"},
        ROUND,
        False,
    ),
    "firefly": ({"conversation_id": 1, "conversation": [{"human": "hi", "assistant": "hello"}]}, ROUND, True),
    "firefly_single": ({"kind": "k", "input": "hi", "target": "hello"}, ROUND, False),
    "lima": ({"conversations": TURNS, "source": "s"}, TURNS, False),
    "ultrachat": ({"id": "0", "data": TURNS}, TURNS, True),
    "chinese_vicuna": ({"input": ["hi", "bye"], "output": ["hello", "see you"]}, TURNS, True),
    "moss": (
        {
            "conversation_id": 1,
            "chat": {
                "turn_2": {"Human": "<|Human|>: bye<eoh>\n", "MOSS": "<|MOSS|>: see you<eom>\n"},
                "turn_1": {"Human": "<|Human|>: hi<eoh>\n", "Inner Thoughts": "x", "MOSS": "<|MOSS|>: hello<eom>\n"},
            },
        },
        TURNS,
        True,
    ),
    "moss_text": ({"plain_text": "[Human]: hi<eoh> [MOSS]: hello<eoa> "}, ROUND, True),
    "baize": (
        {"topic": "t", "input": "A talk.\n[|Human|] hi\n[|AI|] hello\n[|Human|] bye\n[|AI|] see you\n[|Human|] "},
        TURNS,
        True,
    ),
    "vicuna_text": ({"text": "USER: hi ASSISTANT: hello</s>USER: bye ASSISTANT: see you</s>"}, TURNS, True),
    "refgpt": (
        {
            "reference": "r",
            "dialogue": "<chat>\n<user 1>(word count: 5) hi\n<assistant 1>(word count: 50): hello\n"
            "<user 2>(word count: 5) bye\n<assistant 2>(word count: 9) see you\n</chat>",
        },
        TURNS,
        True,
    ),
    "sgd": (
        {
            "dialogue_id": "1_0",
            "services": ["Hotels_1"],
            "turns": [{"speaker": "USER", "utterance": "hi"}, {"speaker": "SYSTEM", "utterance": "hello"}],
        },
        ROUND,
        True,
    ),
    "dailydialog": ({"dialog": TURNS, "act": [1], "emotion": [0]}, TURNS, True),
    "taskmaster": (
        {
            "conversation_id": "d",
            "utterances": [
                {"speaker": "ASSISTANT", "text": "how can I help?"},
                {"speaker": "USER", "text": "hi"},
                {"speaker": "user", "text": "there"},
                {"speaker": "assistant", "text": "hello"},
            ],
        },
        ["hi there", "hello"],
        True,
    ),
    "taskmaster3_tsv": (
        {
            "column_1": "<PR>find<PRAN>a<C><U>hi<A>hello<U>bye<PN>find<PAN>x",
            "column_2": "[A]see you",
            "column_3": "dlg-1",
        },
        TURNS,
        False,
    ),
    "taskmaster_reward": (
        {
            "conversation_id": "d",
            "context": '[{"role": "agent", "text": "yes?"}, {"role": "user", "text": "hi"}, {"role": "x", "api": {}}]',
            "generation": '{"role": "agent", "text": "hello"}',
            "reward": 1.0,
        },
        ROUND,
        False,
    ),
    "camrest": ({"dial": [{"usr": {"transcript": "hi"}, "sys": {"sent": "hello"}}]}, ROUND, True),
    "multiwoz": ({"id": "M", "goal": {}, "log": [{"text": text} for text in TURNS]}, TURNS, True),
    "crosswoz": (
        {
            "id": "1",
            "goal": [],
            "final_goal": [],
            "messages": [{"role": "usr", "content": "hi"}, {"role": "sys", "content": "hello"}],
        },
        ROUND,
        True,
    ),
    "topical_chat": (
        {
            "id": "t",
            "article_url": "u",
            "content": [{"agent": "agent_2", "message": "hi"}, {"agent": "agent_1", "message": "hello"}],
        },
        ROUND,
        True,
    ),
    "abcd": (
        {"convo_id": 1, "original": [["agent", "Hi!"], ["customer", "hi"], ["action", "x"], ["agent", "hello"]]},
        ROUND,
        True,
    ),
}
"""By the format that has to recognise the row."""

ASKED_FOR = {
    "oasst_paths": (OASST, [["q", "worse"], ["q", "better", "thanks"]], True),
    "belle_generated_chat": (
        {"instruction": "Two friends.", "input": "", "output": "小明：hi\n小红：hello\n小明: bye\n小红: see you"},
        [TURNS],
        True,
    ),
}
"""Formats whose rows look like another one's: they are used when named."""
