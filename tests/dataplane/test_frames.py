"""The readers of documents: whatever a node sends, they give a frame."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.dataplane.frames import READERS, Frame

NAMES = st.sampled_from([
    "choices", "content", "delta", "message", "usage", "response", "tool_calls", "thinking", "type", "done", "error",
    "finish_reason", "content_block", "stop_reason", "status", "incomplete_details", "done_reason", "text", "output",
])  # fmt: skip
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "x", "message_delta", "response.completed"])
)
ANY = st.recursive(PLAIN, lambda inside: st.lists(inside, max_size=3) | st.dictionaries(NAMES, inside, max_size=5))


@pytest.mark.parametrize("shape", READERS)
@given(document=st.dictionaries(NAMES, ANY, max_size=8))
def test_no_document_of_a_node_breaks_its_reader(shape, document):
    """Engines err, and proxies before them; the router's own error would hide theirs."""
    assert isinstance(READERS[shape](document), Frame)
