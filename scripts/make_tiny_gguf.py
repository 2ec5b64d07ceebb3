"""Write a small llama GGUF whose answers are readable words and end after a chosen length.

It is a Markov chain in a llama's clothes: every block adds nothing, so what comes next depends on the last token
alone, and nothing here is random. Answers mean nothing and do not depend on the prompt; engines, templates, token
counts, streams and stops behave as they do with any model. One byte of a prompt is one token.

    python make_tiny_gguf.py tiny.gguf                    answers of about 40 tokens
    python make_tiny_gguf.py endless.gguf --mean-length 0 answers that only a limit ends
    python make_tiny_gguf.py slow.gguf --blocks 16 --width 512
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import gguf
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

# Fewer than a sampler's usual top-k of 40, so that it never cuts the end token off.
WORDS = [
    *("sheep", "goat", "cow", "horse", "lamb", "calf", "bull", "mare", "ram", "ewe", "foal", "pony", "meadow"),
    *("river", "hill", "gate", "fence", "barn", "valley", "field", "grass", "clover", "hay", "rain", "wind", "dawn"),
    *("dusk", "grazes", "walks", "sleeps", "drinks", "waits", "follows", "leads", "returns", "slowly", "together"),
    *("early", "home"),
]
HEADS, KV_HEADS = 4, 2
CONTROL = ["<unk>", "<|im_start|>", "<|im_end|>"]
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece writes a space so
END = CONTROL.index("<|im_end|>")
FIRST_BYTE = len(CONTROL)
FIRST_WORD = FIRST_BYTE + 256 + 1  # the bytes, then the lone space

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Logits. A word's follower stands out, so that temperature 0 gives a round of all words and not the end.
NEVER, PLAIN, FOLLOWER = -30.0, 0.0, 1.5
TEMPERATURE = 0.8  # what both engines sample with unless told otherwise
# Shorter, and temperature 0 would end at once; longer, and the end is less likely than any word: top-p drops it.
SHORTEST_MEAN, LONGEST_MEAN = 8.0, 42.0


@dataclass(frozen=True)
class Shape:
    """The sizes of the network; `width` holds one place a word and some more for everything else."""

    blocks: int
    width: int
    context: int

    @property
    def head(self) -> int:
        """The width of one attention head."""
        return self.width // HEADS


def end_logit(mean_length: float) -> float:
    """The end token's logit for answers of about `mean_length` tokens at the usual temperature; 0 means never."""
    if not mean_length:
        return NEVER
    others = math.exp(FOLLOWER / TEMPERATURE) + len(WORDS) - 1
    return TEMPERATURE * math.log(others / (mean_length - 1))


def vocabulary() -> tuple[list[bytes], list[gguf.TokenType]]:
    """Control tokens, the 256 bytes, a space, the words; with the type of each."""
    pieces = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), SPACE, *(SPACE + word for word in WORDS)]
    kinds = [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * (len(CONTROL) - 1)
    kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * (1 + len(WORDS))
    return [piece.encode() for piece in pieces], kinds


def embeddings(tokens: int, width: int) -> Matrix:
    """Two ones a token: place 0, which carries the bias, and a place of the word's own or, shared, of the rest."""
    rows = np.zeros((tokens, width), np.float32)
    rows[:, 0] = 1.0
    spare = width - 1 - len(WORDS)
    for token in range(tokens):
        word = token - FIRST_WORD
        rows[token, 1 + word if word >= 0 else 1 + len(WORDS) + token % spare] = 1.0
    return rows


def output_rows(tokens: int, width: int, mean_length: float) -> Matrix:
    """The table of transitions: the row of a token is its logit after each place."""
    rows = np.zeros((tokens, width), np.float32)
    rows[:, 0] = NEVER
    rows[FIRST_WORD:, 0] = PLAIN
    rows[END, 0] = end_logit(mean_length)
    for word in range(len(WORDS)):
        rows[FIRST_WORD + (word + 1) % len(WORDS), 1 + word] = FOLLOWER
    rows[FIRST_WORD, 1 + len(WORDS) :] = FOLLOWER
    return rows / math.sqrt(width / 2)  # what the last norm makes of each of the two ones


def describe(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """The network's header."""
    writer.add_name("herd-tiny")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.blocks)
    writer.add_feed_forward_length(2 * shape.width)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(shape.head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def add_tokenizer(writer: gguf.GGUFWriter, tokens: list[bytes], kinds: list[gguf.TokenType]) -> None:
    """A SentencePiece vocabulary in which no piece of a word is a token, so that a prompt falls apart into bytes."""
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(CONTROL.index("<|im_start|>"))
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(CHATML)


def add_block(writer: gguf.GGUFWriter, name: str, shape: Shape) -> None:
    """A block that costs its arithmetic and adds zero."""
    kv_width, inner = KV_HEADS * shape.head, 2 * shape.width
    sizes = {
        "attn_q": (shape.width, shape.width),
        "attn_k": (kv_width, shape.width),
        "attn_v": (kv_width, shape.width),
        "attn_output": (shape.width, shape.width),
        "ffn_gate": (inner, shape.width),
        "ffn_up": (inner, shape.width),
        "ffn_down": (shape.width, inner),
    }
    for part, size in sizes.items():
        writer.add_tensor(f"{name}.{part}.weight", np.zeros(size, np.float16))
    for norm in ("attn_norm", "ffn_norm"):
        writer.add_tensor(f"{name}.{norm}.weight", np.ones(shape.width, np.float32))


def write_model(path: str, shape: Shape, mean_length: float) -> None:
    """Write the file at `path`, replacing what is there."""
    tokens, kinds = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    describe(writer, shape)
    add_tokenizer(writer, tokens, kinds)
    writer.add_tensor("token_embd.weight", embeddings(len(tokens), shape.width).astype(np.float16))
    for number in range(shape.blocks):
        add_block(writer, f"blk.{number}", shape)
    writer.add_tensor("output_norm.weight", np.ones(shape.width, np.float32))
    writer.add_tensor("output.weight", output_rows(len(tokens), shape.width, mean_length))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    """Read the command line and write one model."""
    parser = argparse.ArgumentParser(description="Write a tiny llama GGUF for tests of inference servers.")
    parser.add_argument("path")
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--width", type=int, default=64, help="a multiple of 8, at least 64")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--mean-length", type=float, default=40, help="of an answer, in tokens; 0: no end")
    args = parser.parse_args()
    if args.width < 64 or args.width % 8:
        parser.error("--width must be a multiple of 8 and at least 64")
    if args.mean_length and not SHORTEST_MEAN <= args.mean_length <= LONGEST_MEAN:
        parser.error(f"--mean-length must be 0 or from {SHORTEST_MEAN:g} to {LONGEST_MEAN:g}")
    write_model(args.path, Shape(args.blocks, args.width, args.context), args.mean_length)


if __name__ == "__main__":
    main()
