"""The compose file: valid, pinned, closed, and in line with every file and port that it names."""

import json
import re
import shlex

import pytest
import yaml
from compose_spec import PyCompose

from herd.settings.load import checked
from herd.settings.table import BY_NAME
from herd.sim.__main__ import arguments as sim_options
from tests.pack.contents import DASHBOARDS, ROOT

FILE = ROOT / "docker-compose.yml"
COMPOSE = yaml.safe_load(FILE.read_text())
SERVICES = COMPOSE["services"]
OURS = {name for name, service in SERVICES.items() if "build" in service}
WITHOUT_A_PROGRAM_TO_ASK_WITH = {"collector"}
MOUNTS = [
    (name, *mount.split(":"))
    for name, service in SERVICES.items()
    for mount in service.get("volumes", ())
]  # fmt: skip


def config(name):
    """A configuration file of otel/."""
    return yaml.safe_load((ROOT / "otel" / name).read_text())


def options(name):
    """A service's command line as a text."""
    return " ".join(map(str, SERVICES[name].get("command", ())))


def test_the_specification_s_own_parser_takes_it():
    """A key in the wrong place stops `docker compose up` before anything starts."""
    found = PyCompose.from_json(json.dumps(COMPOSE))  # by then, what is written once for several services is filled in
    found.validate()
    assert set(found.service_names()) == set(SERVICES)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned_and_root_is_nowhere(name):
    """What ran yesterday runs tomorrow, and a hole in it is not one in the machine."""
    service = SERVICES[name]
    tag = service["image"].rpartition(":")[2]
    assert name in OURS or re.fullmatch(r"v?\d+\.\d+\.\d+", tag)
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert str(service.get("user", "1")).partition(":")[0] not in {"0", "root"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_on_this_machine_alone(name):
    """There are no credentials yet."""
    for port in SERVICES[name].get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_serves_has_a_health_check(name):
    """Others wait for it, and `docker compose ps` tells."""
    check = SERVICES[name].get("healthcheck", {})
    if name in WITHOUT_A_PROGRAM_TO_ASK_WITH or name in {"traffic", "spans-folder"}:
        assert check == {"disable": True}
    else:
        assert check["test"][0] == "CMD"
        port = re.search(r"127\.0\.0\.1:(\d+)", check["test"][-1])
        assert port, "it asks its own container"


@pytest.mark.parametrize(("name", "source", "target"), [mount[:3] for mount in MOUNTS])
def test_every_mount_has_a_source(name, source, target):
    """Docker makes an empty folder of a missing file, and the service starts with nothing."""
    assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]
    assert target.startswith("/")


def test_every_volume_is_used_and_what_is_read_only_is_ours():
    """Nothing in the working tree may be written by a container."""
    assert {source for _, source, *_ in MOUNTS if not source.startswith("./")} == set(COMPOSE["volumes"])
    assert all(rest == ["ro"] for _, source, _, *rest in MOUNTS if source.startswith("./"))


def test_every_configuration_is_where_its_program_looks():
    """The path on the command line is the path of the mount."""
    for name in ("collector", "tempo", "prometheus"):
        (path,) = re.findall(r"-?-config(?:\.file)?=(\S+)", options(name))
        assert path in {target for service, _, target, *_ in MOUNTS if service == name}
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == "/etc/grafana/dashboards/health.json"
    provider = yaml.safe_load((ROOT / "grafana/provisioning/dashboards/herd.yaml").read_text())["providers"][0]
    folders = {target for service, _, target, *_ in MOUNTS if service == "grafana"}
    assert {provider["options"]["path"], "/etc/grafana/provisioning"} <= folders
    assert "health" in {path.stem for path in DASHBOARDS}


def test_prometheus_sees_the_targets_that_the_router_writes_and_nothing_else_of_its_data():
    """The agents' job would stay empty, or the database be open to whoever gets into Prometheus."""
    volumes = {(name, target): source for name, source, target, *_ in MOUNTS}
    assert "HERD_DATA_DIR=/data" in (ROOT / "Dockerfile").read_text()
    (file,) = [path for job in config("prometheus.yml")["scrape_configs"] for each in job.get("file_sd_configs", ())
               for path in each["files"]]  # fmt: skip
    folder, _, name = file.rpartition("/")
    assert name == "agents.json"
    assert volumes["prometheus", folder] == volumes["herd", "/data/prometheus"] != volumes["herd", "/data"]


def test_services_find_each_other_at_the_ports_on_which_they_listen():
    """A wrong port is silence: nothing fails, and a panel stays empty."""
    listening = {
        "herd:11435": SERVICES["herd"]["ports"][0],
        "collector:4318": config("collector.yaml")["receivers"]["otlp"]["protocols"]["http"]["endpoint"],
        "tempo:4318": config("tempo.yaml")["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"],
        "tempo:3200": f":{config('tempo.yaml')['server']['http_listen_port']}",
        "collector:8888": ":{port}".format(
            **config("collector.yaml")["service"]["telemetry"]["metrics"]["readers"][0]["pull"]["exporter"][
                "prometheus"
            ]
        ),
        "prometheus:9090": SERVICES["prometheus"]["ports"][0],
    }
    texts = [FILE, *(ROOT / "otel").glob("*.y*ml"), *(ROOT / "grafana/provisioning").rglob("*.yaml")]
    used = {found for path in texts for found in re.findall(rf"\b(?:{'|'.join(SERVICES)}):\d+\b", path.read_text())}
    used -= {f"{name}:{uid}" for name, uid in [("user", "10001")]}
    for address in used & listening.keys():
        assert listening[address].endswith(address.partition(":")[2])
    images = {service["image"] for service in SERVICES.values()}
    assert {address for address in used - listening.keys() if not any(address in image for image in images)} == set()


def test_prometheus_starts_beside_a_router_that_is_not_well():
    """RouterDown could not fire otherwise, just when it is needed."""
    assert SERVICES["prometheus"]["depends_on"]["herd"] == {"condition": "service_started"}


def test_nobody_logs_in_to_grafana_with_its_first_password():
    """Without the form its API would still take admin, admin, and an administrator can do more than an editor."""
    given = SERVICES["grafana"]["environment"]
    assert (given["GF_AUTH_DISABLE_LOGIN_FORM"], given["GF_AUTH_BASIC_ENABLED"]) == ("true", "false")


def test_the_router_s_settings_are_settings():
    """A name that herd does not know would stop its start."""
    given = {key: value for key, value in SERVICES["herd"]["environment"].items() if key.startswith("HERD_")}
    for key, value in given.items():
        setting = BY_NAME[key.removeprefix("HERD_").lower()]
        checked(setting.name, value == "true" if isinstance(setting.default, bool) else value, "docker-compose.yml")


@pytest.mark.parametrize("name", ["studio", "gpu-box"])
def test_the_simulated_nodes_are_started_as_they_can_be(name):
    """They announce an address that the router reaches, and that an Ollama would answer to."""
    command = SERVICES[name]["command"]
    assert command[:3] == ["python", "-m", "herd.sim"]
    given = sim_options().parse_args(command[3:])
    assert given.advertise_url == f"http://{name}.internal:{given.port}"
    assert SERVICES[name]["networks"]["default"]["aliases"] == [f"{name}.internal"]
    assert given.router == "http://herd:11435"


def test_the_image_holds_what_the_services_run():
    """Router, agent and simulation come from one image."""
    text = (ROOT / "Dockerfile").read_text()
    for line in re.findall(r"^COPY ((?!--from).+) \S+$", text, re.MULTILINE):
        for source in shlex.split(line):
            assert (ROOT / source).exists()
            assert f"!{source}" in (ROOT / ".dockerignore").read_text().split()
    assert "USER 10001:10001" in text
    assert text.index("USER") < text.rindex("CMD")
