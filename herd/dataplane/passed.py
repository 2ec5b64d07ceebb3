"""Requests that only some engines answer (reranking, token counts, audio): which model they name, whatever their form.

Pure. Their bodies are passed on as they are; a form's files are not looked at.
"""

import re
from typing import Final
from urllib.parse import parse_qs

from herd.core.fleet import Fleet, Node
from herd.core.placement import can_manage
from herd.dataplane.document import object_in

IN_A_FORM: Final = re.compile(rb'name="?model"?[^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,256})\r\n')


def model_named(body: bytes, content_type: str, query: bytes) -> str | None:
    """The model that a request names: in its form, its JSON object or its query; None where it names none."""
    if content_type.lower().startswith("multipart/form-data"):
        found = IN_A_FORM.search(body)
        return found[1].decode("utf-8", "replace").strip() if found else None
    named = (object_in(body) or {}).get("model") if body else parse_qs(query.decode("latin-1")).get("model", [None])[0]
    return named if isinstance(named, str) and named else None


def node_for(fleet: Fleet, endpoint: str, model: str | None) -> Node | None:
    """The node for such a request: one that speaks the endpoint and holds the model, in memory before on disk."""
    able = [node for node in fleet.nodes if can_manage(node, endpoint) and not node.draining]
    holders = [node for node in able if model is None or node.holds(model)]
    return min(holders, key=lambda node: (model is None or not node.in_memory(model), node.node_id), default=None)
