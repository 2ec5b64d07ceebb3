"""Makes odd bodies, lets Go read them and keeps what it said: `python -m tests.dataplane.go_reading.record`."""

import random
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
RECORDED = HERE / "recorded.jsonl"
BODIES = 900

MODEL_KEYS = ["model"] * 12 + ["Model", "MODEL", "mOdel", r"mod\u0065l", r"\u004dodel", "models", "model "]
STREAM_KEYS = ["stream"] * 6 + ["Stream", "STREAM", "ſtream", r"\u017ftream", r"\u0073tream", "streaſm"]
OPTIONS_KEYS = ["options"] * 6 + ["Options", "OPTIONS", "optionſ", r"\u006fptions"]
CONTEXT_KEYS = ["num_ctx"] * 6 + ["NUM_CTX", r"num\u005fctx"]
MODELS = ['"m"'] * 10 + ['"m:7b"', '"n"', r'"\u006d"', '""', "null", "7", '"é"', '"a b"', r'"a\u00e9"', '["m"]']
STREAMS = ["true", "false"] * 5 + ["null", '"false"', "0", "1", "True"]
NUMBERS = [
    *["4096", "4096.0", "4.096e3", "8192", "-0.5E-3"] * 4,
    "4096", "4096.0", "4.096e3", "4096E0", "1e3", "1E+3", "-0", "0", "-0.0", "-5", "1e400", "-1e400", "1e-400", "0.5",
    "2.5", "12345.678e2", "01", "+1", ".5", "1.", "1e", "0x10", "NaN", "Infinity", "-Infinity", "9007199254740991",
    "true", "null", '"4096"',
]  # fmt: skip
STRINGS = [
    *['"Hello"'] * 6,
    r'"\ud83d\ude00"', r'"\ud800"', r'"\udc00x"', '"\u2028\u2029\x85"', '"\x7f"', '"\t"', '"\n"', '"\x00"',
    r'"\x"', r'"\u12"', r'"\/"', '"\U0001f600"', '"unfinished', "'single'", r'"a\"model\": b"', '"model"',
]  # fmt: skip
OTHERS = [
    *["null", "[]", "{}", "[[[[]]]]", '{"model":"inner"}', '{"Model":[{"stream":1}]}'] * 3,
    "[1,2,]", '{"a":1,}', "{'a':1}", "1 2", "[1 2]", "//x", "/**/1",
]  # fmt: skip
SPACES = [""] * 24 + [" ", "\n", "\t\r\n "] * 3 + ["\x0b", "\xa0", "\ufeff"]
TAILS = [""] * 12 + ["\n", " x", "{}", "}", ",", "\x00"]
HEADS = [""] * 20 + ["\ufeff", " \n", "\x00", "x"]


def value(dice: random.Random) -> str:
    """Any value, mostly a legal one."""
    kind = dice.randrange(5)
    if kind == 0:
        return dice.choice(NUMBERS)
    if kind == 1:
        return dice.choice(STRINGS)
    if kind == 2:
        return dice.choice(OTHERS)
    if kind == 3:
        return "[" * (depth := dice.choice([1, 3, 50])) + "]" * depth
    return "7" * dice.choice([1, 19, 20, 100])


def member(dice: random.Random) -> str:
    """One member of a body, of those that herd reads or another."""
    space = dice.choice(SPACES)
    kind = dice.randrange(8)
    if kind < 2:
        return f'{space}"{dice.choice(STREAM_KEYS)}"{space}:{dice.choice(STREAMS)}{space}'
    if kind < 4:
        inner = ",".join(f'"{dice.choice(CONTEXT_KEYS)}":{dice.choice(NUMBERS)}' for _ in range(dice.randrange(3)))
        return f'"{dice.choice(OPTIONS_KEYS)}":{space}{dice.choice(["{" + inner + "}"] * 6 + ["null", "[]"])}'
    if kind == 4:
        return f'"messages":[{{"role":"user","content":{dice.choice(STRINGS)}}}]'
    if kind == 5:
        return f'"model":{dice.choice(MODELS)}' if dice.random() < 0.2 else f'"":{value(dice)}'
    return f'"{dice.choice(["x", "é", "X", "tools2"])}":{space}{value(dice)}'


def body(dice: random.Random) -> bytes:
    """A whole body; now and then with bytes that are no UTF-8."""
    members = [member(dice) for _ in range(dice.choice([0, 1, 2, 2, 3, 5]))]
    members.insert(dice.randrange(len(members) + 1), f'"{dice.choice(MODEL_KEYS)}":{dice.choice(MODELS)}')
    text = f"{dice.choice(HEADS)}{{{','.join(members)}}}{dice.choice(TAILS)}".encode()
    if dice.random() < 0.1:
        text = text.replace(b"Hello", dice.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"]))
    return text[: dice.randrange(len(text))] if dice.random() < 0.03 else text


def main() -> None:
    """Write what Go reads."""
    dice = random.Random(9)
    bodies = "\n".join(dict.fromkeys(body(dice).hex() for _ in range(BODIES)))
    said = subprocess.run(["go", "run", HERE / "reader.go"], input=bodies, capture_output=True, text=True, check=True)
    RECORDED.write_text(said.stdout, encoding="utf-8")


if __name__ == "__main__":
    main()
