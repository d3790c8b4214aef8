"""Models: in the file or in the database, as one setting says."""

from collections.abc import Iterator

import pytest

from gatehouse.lab.workstation import Workstation
from tests.deploying import deploy
from tests.given import model

MODEL = "chat-mine-vllm"
TABLE = """docker exec gatehouse-postgres-1 psql -U litellm -d litellm -Atc \
'SELECT model_name, litellm_params FROM "LiteLLM_ProxyModelTable"'"""
SEED = "LiteLLM | Add new models to the database"


@pytest.fixture
def in_database(workstation: Workstation) -> Iterator[dict[str, object]]:
    """Deploy with models in the database, and put the workstation back afterwards."""
    settings = {"litellm_config_source": "database", "models_extra": [model(MODEL)]}
    assert SEED in deploy(workstation, settings=settings).changed
    yield settings
    deploy(workstation)


def test_models_in_the_database_are_added_once_and_kept(
    workstation: Workstation, in_database: dict[str, object]
) -> None:
    """A deploy stores new models encrypted, and leaves alone what the web interface changed."""
    name, stored = workstation.exec(TABLE).stdout.strip().split("|", 1)
    assert name == MODEL
    assert "hosted_vllm" not in stored, "the parameters are stored in clear text"
    assert deploy(workstation, settings=in_database).changed == []
    workstation.exec(
        "docker exec gatehouse-postgres-1 psql -U litellm -d litellm -Atc "
        '"UPDATE \\"LiteLLM_ProxyModelTable\\" SET model_name = \'chat-renamed-by-hand\'"'
    )
    assert deploy(workstation, settings=in_database).changed == [SEED]
    names = workstation.exec(TABLE + " | cut -d '|' -f 1").stdout.split()
    assert sorted(names) == [MODEL, "chat-renamed-by-hand"]
    workstation.exec(
        "docker exec gatehouse-postgres-1 psql -U litellm -d litellm -Atc "
        "'DELETE FROM \"LiteLLM_ProxyModelTable\"'"
    )
