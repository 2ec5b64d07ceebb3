"""Which node holds the beginning of which prompt, so that a conversation finds the cache that an engine kept of it.

Pure. It knows chains of hashes and what engines reported of their caches; never a word of a prompt. What it says is a
guess: engines do not tell what they hold, only afterwards how much of a prompt they found.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

Chain = tuple[int, ...]

BYTES_PER_TOKEN: Final = 4  # a rule of thumb, in UTF-8: 4 letters of English, or a little more than one of Chinese
BLOCK: Final = 1024
# Where blocks end, in bytes. Engines match single tokens, so what falls short of an edge is undercounted, by half a
# block on average. The first ones are short: a second turn of a few words already finds its node.
EDGES: Final = (64, 128, 256, 512, *range(BLOCK, 509 * BLOCK, BLOCK))
MOST_CLAIMS: Final = 250_000  # over all nodes; a claim is a block of a prompt, about 80 bytes
# How many times as many prompts an engine keeps as it has slots. llama.cpp's server moves those that it takes out of a
# slot to main memory, 8 GiB of them unless told otherwise; how many those are depends on the model.
ASIDE: Final[Mapping[str, int]] = {"llamacpp": 4}
FULL_TRUST: Final = 1.0
LEARNING: Final = 0.3
FAR_FEWER: Final = 0.5
ROUNDING: Final = 0.9  # blocks are no tokens, and an engine works at least on the last token anew


@dataclass(frozen=True, slots=True)
class Room:
    """What the cache of one model on one node holds: so many prompts, and so many tokens in all."""

    prompts: int = 4
    tokens: int = 4 * 8192

    @classmethod
    def of(cls, slots: int, context_length: int | None, engine: str = "") -> "Room":
        """An engine keeps the last prompt of each slot, each up to the loaded context; some put older ones aside."""
        prompts, aside = max(1, slots), ASIDE.get(engine, 1)
        return cls(prompts * aside, prompts * aside * (context_length or 8192))


DEFAULT_ROOM: Final = Room()


def chain_of(prompt: bytes) -> Chain:
    """A hash for each block of a prompt that is full, each covering all before it.

    Python salts its hash anew in each process: the chains of two processes cannot be compared, and nobody can find out
    from one what the prompt was by trying.
    """
    if len(prompt) < EDGES[0]:
        return ()
    chain, before = [], 0
    for begin, end in pairwise((0, *EDGES[: bisect_right(EDGES, len(prompt))])):
        before = hash((before, prompt[begin:end]))
        chain.append(before)
    return tuple(chain)


def tokens_in(blocks: int) -> int:
    """About how many tokens the first blocks of a prompt are."""
    return EDGES[blocks - 1] // BYTES_PER_TOKEN if blocks else 0


class PrefixIndex:
    """The beginnings of prompts that each node holds in memory, model by model."""

    def __init__(self, most_claims: int = MOST_CLAIMS) -> None:
        self._caches: dict[str, dict[str, _Cache]] = {}
        self._ages: OrderedDict[tuple[str, str, int], None] = OrderedDict()
        self._claims = 0
        self._most_claims = most_claims

    def __len__(self) -> int:
        return self._claims

    def cached(self, model: str, chain: Chain) -> Mapping[str, int]:
        """About how many tokens of this prompt each node has in its cache; nodes without any are left out.

        Tokens are of the same estimate as `Request.prompt_tokens`.
        """
        if not chain:
            return {}
        first, found = chain[0], {}
        for node_id, cache in self._caches.get(model, {}).items():
            if first in cache.blocks and (tokens := int(tokens_in(cache.depth(chain)) * cache.trust)):
                found[node_id] = tokens
        return found

    def answered(
        self,
        node_id: str,
        model: str,
        chain: Chain,
        prompt_tokens: int | None,
        cached_tokens: int | None,
        room: Room = DEFAULT_ROOM,
    ) -> None:
        """A node worked on this prompt, and so holds it now.

        `prompt_tokens` and `cached_tokens` are what the engine reported, None where it did not: if it found far fewer
        than were expected there, it holds less than was thought.
        """
        if not chain:
            return
        cache = self._caches.setdefault(model, {}).setdefault(node_id, _Cache())
        if cached_tokens is not None and prompt_tokens:
            self._correct(node_id, model, chain, min(1.0, cached_tokens / prompt_tokens))
        for leaf in [block for block in chain if block in cache.prompts]:
            self._drop(node_id, model, leaf)  # this prompt goes on from it, in its place
        self._claims += cache.add(chain)
        self._ages[model, node_id, chain[-1]] = None
        while cache.overflows(room):
            self._drop(node_id, model, next(iter(cache.prompts)))
        while self._claims > self._most_claims:
            self._drop_oldest()

    def forget(self, node_id: str, model: str | None = None) -> None:
        """The node has lost its cache: of one model that was unloaded, or of all."""
        for name in [model] if model is not None else list(self._caches):
            nodes = self._caches.get(name, {})
            if node_id in nodes:
                for leaf in list(nodes[node_id].prompts):
                    self._drop(node_id, name, leaf)
                del nodes[node_id]

    def _correct(self, node_id: str, model: str, chain: Chain, share: float) -> None:
        """Compare the share of a prompt that the engine had in its cache with what was expected there."""
        cache = self._caches[model][node_id]
        expected = tokens_in(cache.depth(chain))
        if not expected:
            return
        found = share * tokens_in(len(chain))
        kept = 1.0 if found >= ROUNDING * expected else found / expected
        cache.trust += LEARNING * (kept - cache.trust)
        if kept < FAR_FEWER:
            lost = chain[bisect_right(EDGES, found * BYTES_PER_TOKEN)]
            for leaf in [leaf for leaf, held in cache.prompts.items() if lost in held]:
                self._drop(node_id, model, leaf)

    def _drop(self, node_id: str, model: str, leaf: int) -> None:
        self._claims -= self._caches[model][node_id].remove(leaf)
        del self._ages[model, node_id, leaf]

    def _drop_oldest(self) -> None:
        model, node_id, leaf = next(iter(self._ages))
        self._drop(node_id, model, leaf)


class _Cache:
    """What one node is believed to hold of one model: prompts by their last block, the oldest first.

    `blocks` counts the prompts in which a block occurs. Whoever holds a block holds all before it, so that the longest
    match is found by halving. `trust` is the share of what was expected that the engine really found, lately.
    """

    def __init__(self) -> None:
        self.prompts: OrderedDict[int, Chain] = OrderedDict()
        self.blocks: dict[int, int] = {}
        self.tokens = 0
        self.trust = FULL_TRUST

    def depth(self, chain: Chain) -> int:
        """How many blocks of a prompt are held."""
        low, high, blocks = 0, len(chain), self.blocks
        while low < high:
            middle = (low + high) // 2
            if chain[middle] in blocks:
                low = middle + 1
            else:
                high = middle
        return low

    def overflows(self, room: Room) -> bool:
        """Whether more is noted than fits; the last prompt stays, whatever its size."""
        return len(self.prompts) > 1 and (len(self.prompts) > room.prompts or self.tokens > room.tokens)

    def add(self, chain: Chain) -> int:
        """Note a prompt; returns how many claims that adds."""
        blocks = self.blocks
        for block in chain:
            blocks[block] = blocks.get(block, 0) + 1
        self.prompts[chain[-1]] = chain
        self.tokens += tokens_in(len(chain))
        return len(chain)

    def remove(self, leaf: int) -> int:
        """Take a prompt out; returns how many claims that takes away."""
        chain, blocks = self.prompts.pop(leaf), self.blocks
        for block in chain:
            if blocks[block] == 1:
                del blocks[block]
            else:
                blocks[block] -= 1
        self.tokens -= tokens_in(len(chain))
        return len(chain)
