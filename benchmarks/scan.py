"""What reading a stream costs a frame: `python -m benchmarks.scan` prints a Markdown table.

Compared are the scanner and the parser that it stands for (json and the shape's reader for every line), over frames in
the form of real engines, one a chunk. Each figure is the smallest of many short runs, in turn, so that a busy machine
shows in few of them.
"""

import argparse
import json
import time
from collections.abc import Callable

from herd.core.dialects import Shape
from herd.dataplane.frames import READERS
from herd.dataplane.scan import Scanner

BATCH = 50
CHAT = (
    'data: {{"id":"chatcmpl-123","object":"chat.completion.chunk","created":1770112272,"model":"llama3.2:3b",'
    '"system_fingerprint":"fp_ollama","choices":[{{"index":0,"delta":{{"role":"assistant","content":"{0}"}},'
    '"finish_reason":null}}]}}\n\n'
)
CALL = (
    'data: {{"id":"chatcmpl-123","object":"chat.completion.chunk","created":1770112272,"model":"qwen3-8b","choices":'
    '[{{"index":0,"delta":{{"tool_calls":[{{"index":0,"function":{{"arguments":"{0}"}}}}]}},"finish_reason":null}}]}}\n\n'
)
LINE = (
    '{{"model":"llama3.2:3b","created_at":"2026-02-03T09:51:12.0{1:08}Z",'
    '"message":{{"role":"assistant","content":"{0}"}},"done":false}}\n'
)
DELTA = (
    "event: response.output_text.delta\n"
    'data: {{"content_index":0,"delta":"{0}","item_id":"msg_123","logprobs":[],"output_index":0,'
    '"sequence_number":{1},"type":"response.output_text.delta"}}\n\n'
)
BLOCK = (
    "event: content_block_delta\n"
    'data: {{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"{0}"}}}}\n\n'
)
ODDS = CHAT.replace('"finish_reason"', '"logprobs":{{"content":[{{"token":"{0}","logprob":-0.{1}}}]}},"finish_reason"')
FRAMES = (
    ("Ollama, /api/chat", Shape.OLLAMA, LINE),
    ("OpenAI chat", Shape.OPENAI, CHAT),
    ("OpenAI chat, arguments of a call", Shape.OPENAI, CALL),
    ("OpenAI chat with probabilities (no form)", Shape.OPENAI, ODDS),
    ("/v1/responses", Shape.RESPONSES, DELTA),
    ("/v1/messages", Shape.MESSAGES, BLOCK),
)
WORDS = (" word", " and", " a", " longer", ",", "\\n", " 東京", ' \\"so\\"', " then", " it", " is")


class Parser:
    """The least that parsing every line needs."""

    def __init__(self, shape: Shape) -> None:
        self._read = READERS[shape]
        self.content = 0

    def feed(self, chunk: bytes) -> None:
        """Parse each line that may be a frame."""
        for line in chunk.split(b"\n"):
            payload = line.removeprefix(b"data: ")
            if payload.startswith(b"{"):
                self.content += self._read(json.loads(payload)).content


def batch_us(feed: Callable[[bytes], object], chunks: list[bytes]) -> float:
    """Microseconds a chunk, for all of these once."""
    began = time.perf_counter()
    for chunk in chunks:
        feed(chunk)
    return (time.perf_counter() - began) / len(chunks) * 1e6


def measure(shape: Shape, frame: str, rounds: int) -> tuple[float, float]:
    """Microseconds a frame: parser, scanner."""
    chunks = [frame.format(WORDS[at % len(WORDS)], at + 1).encode() for at in range(BATCH)]
    scanner, parser = Scanner(shape), Parser(shape)
    runs = [(batch_us(parser.feed, chunks), batch_us(scanner.feed, chunks)) for _ in range(rounds)]
    assert scanner.summary().content_frames == parser.content == rounds * BATCH
    return min(parsed for parsed, _ in runs), min(scanned for _, scanned in runs)


def main() -> None:
    """Measure all shapes and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=400)
    rounds = arguments.parse_args().rounds
    print("| frames of content | parsed, µs | scanned, µs | ratio |\n|---|---|---|---|")
    for name, shape, frame in FRAMES:
        parsed, scanned = measure(shape, frame, rounds)
        print(f"| {name} | {parsed:.2f} | {scanned:.2f} | {parsed / scanned:.1f} |")


if __name__ == "__main__":
    main()
