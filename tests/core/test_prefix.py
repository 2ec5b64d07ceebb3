"""Chains of block hashes, and the index of who holds which: longest match, bounded, corrected by what engines say."""

from hypothesis import given
from hypothesis import strategies as st

from herd.core.prefix import BLOCK, EDGES, PrefixIndex, Room, chain_of, tokens_in

MODEL = "m:latest"
HELLO = b"system\0Be brief.\0user\0" + b"What is the weather in Bern today? " * 40
ROOMY = Room(prompts=100, tokens=10**7)


def longer(prompt, words=b"And tomorrow? "):
    return prompt + words * 200


def test_the_chain_of_a_longer_prompt_begins_with_that_of_a_shorter_one():
    """That is what makes a conversation's next turn find the node of the last."""
    short, long = chain_of(HELLO), chain_of(longer(HELLO))
    assert short == long[: len(short)]
    assert len(long) > len(short) > 0


def test_one_changed_character_changes_all_blocks_after_it():
    """An engine's cache ends at the first token that differs; a block further on that is alike is worth nothing."""
    prompt = longer(HELLO)
    changed = prompt[:600] + b"#" + prompt[601:]
    first, second = chain_of(prompt), chain_of(changed)
    assert first[:4] == second[:4]  # 512 bytes
    assert not set(first[4:]) & set(second[4:])


def test_a_prompt_of_a_few_words_has_no_chain_and_a_few_more_have_one():
    """Nothing is gained by a cache of ten tokens; a second short turn already finds its node."""
    assert chain_of(b"user\0Hello") == ()
    assert len(chain_of(b"x" * 64)) == 1


def test_a_chain_never_grows_beyond_its_bound():
    """A prompt of a hundred megabytes must not cost more than one of half a megabyte."""
    assert len(chain_of(b"x" * 10 * 2**20)) == len(EDGES) == 512


def test_the_longest_match_of_each_node_is_found():
    """Several nodes can hold a conversation, one further than another."""
    index, turns = PrefixIndex(), [HELLO, longer(HELLO), longer(longer(HELLO))]
    index.answered("a", MODEL, chain_of(turns[0]), None, None)
    index.answered("b", MODEL, chain_of(turns[1]), None, None)
    held = index.cached(MODEL, chain_of(turns[2]))
    assert held == {"a": tokens_in(len(chain_of(turns[0]))), "b": tokens_in(len(chain_of(turns[1])))}
    assert index.cached("other:latest", chain_of(turns[2])) == {}
    assert index.cached(MODEL, chain_of(b"another prompt " * 100)) == {}


def test_sessions_that_share_a_system_prompt_do_not_take_each_others_node():
    """Agents begin alike for thousands of tokens; what is worth most is what comes after."""
    system = b"You are a coding agent. " * 200
    index, one, two = PrefixIndex(), system + b"Fix the bug. " * 100, system + b"Write a test. " * 100
    index.answered("a", MODEL, chain_of(one), None, None)
    index.answered("b", MODEL, chain_of(two), None, None)
    for prompt, own, other in ((one, "a", "b"), (two, "b", "a")):
        held = index.cached(MODEL, chain_of(longer(prompt)))
        assert held[own] > held[other] >= len(system) // 4 - BLOCK


def test_a_next_turn_takes_the_place_of_the_one_before():
    """It goes on in the same slot; counted twice, two conversations would fill four slots."""
    index, room = PrefixIndex(), Room(prompts=2, tokens=10**6)
    other = chain_of(b"Something else. " * 50)
    index.answered("a", MODEL, other, None, None, room)
    prompt = HELLO
    for _ in range(5):
        index.answered("a", MODEL, chain_of(prompt), None, None, room)
        prompt = longer(prompt)
    assert index.cached(MODEL, other)


def test_the_oldest_prompt_goes_when_the_engines_slots_are_full():
    """What no longer is in the cache draws requests to a node for nothing."""
    index, prompts = PrefixIndex(), [f"Question {number}? ".encode() * 30 for number in range(5)]
    for prompt in prompts:
        index.answered("a", MODEL, chain_of(prompt), None, None, Room.of(slots=3, context_length=8192))
    assert [bool(index.cached(MODEL, chain_of(prompt))) for prompt in prompts] == [False, False, True, True, True]


def test_the_oldest_prompt_goes_when_the_engines_context_is_full():
    """Four slots share one cache of so many tokens."""
    index, prompts = PrefixIndex(), [f"Question {number}? ".encode() * 1000 for number in range(3)]
    for prompt in prompts:
        index.answered("a", MODEL, chain_of(prompt), None, None, Room(prompts=4, tokens=2 * len(prompt) // 4))
    assert [bool(index.cached(MODEL, chain_of(prompt))) for prompt in prompts] == [False, True, True]


def test_an_engine_that_puts_prompts_aside_holds_more_than_its_slots():
    """llama.cpp keeps in main memory what it takes out of a slot: an agent's helpers do not cost it its own."""
    room, plain = Room.of(2, 4096, "llamacpp"), Room.of(2, 4096, "ollama")
    assert (plain.prompts, plain.tokens) == (2, 8192)
    assert room.prompts > plain.prompts
    assert room.tokens > plain.tokens


def test_a_model_that_is_unloaded_and_a_node_that_is_lost_hold_nothing():
    """Memory that is gone holds no cache."""
    index, chain = PrefixIndex(), chain_of(HELLO)
    for node_id in ("a", "b"):
        for model in (MODEL, "n:latest"):
            index.answered(node_id, model, chain, None, None)
    index.forget("a", MODEL)
    assert (set(index.cached(MODEL, chain)), set(index.cached("n:latest", chain))) == ({"b"}, {"a", "b"})
    index.forget("b")
    assert (set(index.cached(MODEL, chain)), set(index.cached("n:latest", chain))) == (set(), {"a"})
    index.forget("a")
    index.forget("never seen")
    assert len(index) == 0


def test_a_node_that_found_far_less_than_expected_loses_the_claim():
    """Somebody else used the engine, or it was restarted: its own word is better than our memory."""
    index, prompt = PrefixIndex(), longer(longer(HELLO))
    other = prompt + b"Another end. " * 100
    index.answered("a", MODEL, chain_of(other), 2000, 0, ROOMY)
    index.answered("a", MODEL, chain_of(prompt), 1000, 100, ROOMY)
    held = index.cached(MODEL, chain_of(other))["a"]
    assert held <= tokens_in(len(chain_of(prompt)))


def test_an_engine_that_never_finds_anything_is_believed_less_and_less():
    """Some engines keep no cache for some models; affinity to them would be superstition."""
    index, prompt = PrefixIndex(), longer(HELLO)
    index.answered("a", MODEL, chain_of(prompt), 1000, 0)
    before = index.cached(MODEL, chain_of(prompt))["a"]
    for _ in range(20):
        index.answered("a", MODEL, chain_of(prompt), 1000, 0)
    assert index.cached(MODEL, chain_of(prompt)).get("a", 0) < before / 50
    for _ in range(20):
        index.answered("a", MODEL, chain_of(prompt), 1000, 990)
    assert index.cached(MODEL, chain_of(prompt))["a"] > 0.9 * before


def test_a_report_of_what_was_expected_changes_nothing():
    """Engines work at least on the last token anew, and blocks are no tokens: that is no reason for doubt."""
    index, prompt = PrefixIndex(), longer(HELLO)
    for _ in range(10):
        index.answered("a", MODEL, chain_of(prompt), 1000, 950)
    assert index.cached(MODEL, chain_of(prompt)) == {"a": tokens_in(len(chain_of(prompt)))}


def test_the_index_never_holds_more_than_its_bound():
    """A router runs for months; the oldest claims of all nodes go first."""
    index, chains = PrefixIndex(most_claims=100), [chain_of(f"{number} ".encode() * 500) for number in range(50)]
    for number, chain in enumerate(chains):
        index.answered(f"node{number % 7}", MODEL, chain, None, None, ROOMY)
        assert len(index) <= 100
    assert index.cached(MODEL, chains[-1])
    assert not index.cached(MODEL, chains[0])


TREES = st.lists(st.sampled_from([b"a", b"b", b"c"]), min_size=1, max_size=8).map(
    lambda letters: chain_of(b"".join(letter * 70 for letter in letters))
)
STEPS = st.lists(st.tuples(st.sampled_from("xyz"), TREES, st.none() | st.integers(0, 100), st.booleans()), max_size=40)


@given(STEPS, TREES, st.integers(1, 40))
def test_whatever_happened_a_node_holds_no_more_than_it_answered(steps, asked, most):
    """A claim that nobody earned would send a conversation astray; and what is dropped is dropped whole."""
    index, room = PrefixIndex(most_claims=most), Room(prompts=3, tokens=2000)
    answered: dict[str, list] = {}
    for node_id, chain, cached, lost in steps:
        if lost:
            index.forget(node_id)
            answered.pop(node_id, None)
        else:
            index.answered(node_id, MODEL, chain, 100, cached, room)
            answered.setdefault(node_id, []).append(chain)
        assert 0 <= len(index) <= most
    for node_id, tokens in index.cached(MODEL, asked).items():
        common = max(len(set(asked) & set(chain)) for chain in answered[node_id])
        assert 0 < tokens <= tokens_in(common)
    for node_id in "xyz":
        index.forget(node_id)
    assert len(index) == 0
