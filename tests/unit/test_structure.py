"""The structure: one noun for a component, found in every layer, and one way for data to flow."""

import ast
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from gatehouse.__main__ import main
from gatehouse.render.template import ROOT
from gatehouse.settings import Settings
from gatehouse.settings.model import COMPONENTS as SETTINGS
from tests.given import model, rendered

COMPONENTS = sorted(
    path.stem for path in (ROOT / "compose").glob("*.yaml") if path.stem != "hardened"
)
LAYERS = (
    "gatehouse/settings/{}.py",
    "compose/{}.yaml",
    "gatehouse/deploys/{}.py",
    "gatehouse/checks/{}.py",
    "tests/unit/test_{}.py",
)
# pyinfra executes these itself, and tests may look at what it makes of them.
MAY_IMPORT_PYINFRA = ("gatehouse/deploys/", "tests/", "config.py", "deploy.py")


def sources() -> list[Path]:
    """Give the Python files of the repository, relative to it."""
    folders = [ROOT / name for name in ("gatehouse", "group_data", "tests", "compose")]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    return [path.relative_to(ROOT) for path in [*files, *ROOT.glob("*.py"), ROOT / "inventory"]]


def imported(path: Path) -> set[str]:
    """Give the top-level packages that a file imports, inside its functions too."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("component", COMPONENTS)
def test_component_is_in_every_layer(component: str, layer: str) -> None:
    """What has a Compose file has settings, a deploy, checks and a test of the same name."""
    assert (ROOT / layer.format(component)).is_file()


@pytest.mark.parametrize("component", COMPONENTS)
def test_where_lists_every_layer(component: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`gatehouse where` finds a component by its noun alone."""
    monkeypatch.chdir(ROOT)
    listed = CliRunner().invoke(main, ["where", component]).output.splitlines()
    assert {layer.format(component) for layer in LAYERS} <= set(listed)
    for path in (ROOT / "templates" / component).rglob("*.j2"):
        assert str(path.relative_to(ROOT)) in listed


def test_where_suggests_components(monkeypatch: pytest.MonkeyPatch) -> None:
    """A noun that nothing is called is answered with those that there are."""
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, ["where", "memcached"])
    assert result.exit_code == 1
    assert "redis" in result.output


def test_settings_are_named_after_their_component() -> None:
    """Each setting begins with the noun of the module that declares it."""
    for component in SETTINGS:
        noun = component.__module__.rsplit(".", 1)[-1]
        assert all(re.match(rf"{noun}(_|$)", key) for key in component.model_fields)
    assert Settings.model_fields.keys() == {
        key for component in SETTINGS for key in component.model_fields
    }


def test_only_deploys_import_pyinfra() -> None:
    """Settings, rendering and checks work without pyinfra."""
    guilty = [
        str(path)
        for path in sources()
        if {"pyinfra", "pyinfra_cli"} & imported(path)
        and not str(path).startswith(MAY_IMPORT_PYINFRA)
    ]
    assert not guilty


def test_pure_code_imports_nothing_that_reaches_out() -> None:
    """Settings, rendering and checks open no connection and start no process."""
    outward = {"subprocess", "socket", "urllib3", "httpx", "requests", "docker", "paramiko"}
    for folder in ("settings", "render", "checks"):
        for path in sources():
            if path.is_relative_to(f"gatehouse/{folder}"):
                assert not outward & imported(path), path


def test_template_is_rendered_by_somebody() -> None:
    """No template is left that nothing names."""
    code = "".join((ROOT / path).read_text() for path in sources() if path.parts[0] == "gatehouse")
    for path in (ROOT / "templates").rglob("*.j2"):
        name = path.relative_to(ROOT / "templates").with_suffix("")
        assert re.search(rf'template\(\s*"{re.escape(str(name))}"', code), name


def test_file_beside_compose_is_shipped() -> None:
    """Every file below compose/ is part of a release."""
    everything = (
        rendered().release
        | rendered(litellm_config_source="database", models_extra=[model()]).release
        | rendered(metrics_prometheus=True).release
    )
    shipped = {file.content for file in everything.values()}
    for path in (ROOT / "compose").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.read_text() in shipped, path


def test_settings_page_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/settings.md says what the settings say."""
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(main, ["docs", "--check"])
    assert result.exit_code == 0, result.output


def test_deploy_is_a_table_of_contents() -> None:
    """deploy.py calls components in order, and decides nothing."""
    tree = ast.parse((ROOT / "deploy.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.If | ast.For | ast.While)]
    assert len((ROOT / "deploy.py").read_text().splitlines()) <= 50


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_path_in_a_page_exists(page: str) -> None:
    """What a page links to is there."""
    for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert ((ROOT / page).parent / link).exists(), link


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
)
def test_make_target_in_a_page_exists(page: str) -> None:
    """What a page tells to make can be made, and what it says to call can be called."""
    text = (ROOT / page).read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:`|^\s*\$?\s*)make ([a-z][a-z-]*)", text, re.MULTILINE)) <= targets
    assert set(re.findall(r"python -m gatehouse ([a-z]+)", text)) <= main.commands.keys()
