"""The dashboards by the TypeScript compiler's judgement, against the types that Grafana publishes for its own code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pack.contents import DASHBOARDS, OPTIONAL, ROOT

TYPES = ROOT / "tests" / "pack" / "types"
MODULES = Path(sys.prefix) / "grafana-types" / "node_modules"
COMPILER = MODULES / ".bin" / "tsc"
OPTIONS = {
    "strict": True, "noEmit": True, "skipLibCheck": True, "types": [], "lib": ["es2022"], "target": "es2022",
    "module": "esnext", "moduleResolution": "bundler",
    "paths": {"schema/*": [f"{MODULES}/@grafana/schema/dist/esm/raw/*"],
              "@grafana/schema": [f"{MODULES}/@grafana/schema"]},
}  # fmt: skip
compiled = pytest.mark.skipif(not COMPILER.exists(), reason="npm was not there when `make test` looked for it")


def complaints(folder, dashboards):
    """What the compiler says of these texts of dashboards, by name, one complaint a line."""
    shutil.copy(TYPES / "grafana.ts", folder)
    for name, text in dashboards.items():
        source = f'import type {{ Drawn }} from "./grafana";\nexport const drawn: Drawn = {text};\n'
        (folder / f"{name}.ts").write_text(source)
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": OPTIONS, "include": ["*.ts"]}))
    told = subprocess.run([COMPILER, "-p", folder], capture_output=True, text=True, check=False, timeout=100)
    return [line for line in (told.stdout + told.stderr).splitlines() if line]


@compiled
def test_every_key_and_every_value_is_of_grafana_s_types(tmp_path):
    """Grafana says nothing about a key that it does not know, and draws something else."""
    assert complaints(tmp_path, {path.stem: path.read_text() for path in [*DASHBOARDS, *OPTIONAL]}) == []


@compiled
def test_a_misspelt_key_and_a_wrong_value_are_noticed(tmp_path):
    """Types that let everything through would prove nothing."""
    mistakes = {"options": ('"calcs"', '"calc"'), "field": ('"lineWidth"', '"linewidth"'),
                "value": ('"absolute"', '"absolut"'), "panel": ('"gridPos"', '"gridpos"')}  # fmt: skip
    text = next(path for path in DASHBOARDS if path.stem == "health").read_text()
    said = complaints(tmp_path, {name: text.replace(*mistake, 1) for name, mistake in mistakes.items()})
    assert {line.rpartition("/")[2].partition(".ts")[0] for line in said if "error TS" in line} == set(mistakes)


def test_the_types_are_of_the_grafana_that_is_started():
    """Another version's types know other keys."""
    image = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]["image"]
    wanted = json.loads((TYPES / "package.json").read_text())["devDependencies"]["@grafana/schema"]
    assert image == f"grafana/grafana:{wanted}"
