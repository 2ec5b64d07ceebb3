"""The collector's and Tempo's settings: every part that a pipeline names is there, and nothing is there unused."""

import pytest
import yaml

from tests.pack.contents import ROOT

COLLECTOR = yaml.safe_load((ROOT / "otel" / "collector.yaml").read_text())
PARTS = ("receivers", "processors", "exporters")


@pytest.mark.parametrize("part", PARTS)
def test_pipelines_use_what_is_defined_and_all_of_it(part):
    """The collector refuses to start with an unknown name, and ignores an unused one."""
    used = {name for pipeline in COLLECTOR["service"]["pipelines"].values() for name in pipeline[part]}
    assert used == set(COLLECTOR[part])
    assert set(COLLECTOR["service"]["extensions"]) == set(COLLECTOR["extensions"])


def test_memory_is_limited_first_and_batches_come_last():
    """After a batch it is too late to refuse."""
    for pipeline in COLLECTOR["service"]["pipelines"].values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"


def test_the_file_of_spans_cannot_fill_the_disk():
    """A file that only grows ends every machine."""
    rotation = COLLECTOR["exporters"]["file/spans"]["rotation"]
    assert rotation["max_megabytes"] * rotation["max_backups"] <= 500
    assert rotation["max_days"]
