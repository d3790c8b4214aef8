"""Postgres: only with its password, and only what the gateway needs."""

from testinfra.host import Host

from gatehouse.settings import Settings
from tests.host.conftest import SQL, lines

INSIDE = "docker exec gatehouse-postgres-1"


def test_password_is_needed(host: Host) -> None:
    """Without the password, and with another, nobody comes in over the network."""
    connect = "psql -w -h gatehouse-postgres-1 -U litellm -d litellm -Atc 'select 1'"
    for environment in ("", "-e PGPASSWORD=not-the-password "):
        found = host.run(INSIDE.replace("exec ", f"exec {environment}") + f" {connect}")
        assert found.rc != 0
        assert "password" in found.stderr


def test_password_opens(host: Host) -> None:
    """With the password the gateway's database answers, and it is the gateway's own."""
    found = lines(
        host, SQL + " 'select count(*) > 0 from \"LiteLLM_VerificationToken\" where false'"
    )
    assert found == ["f"]


def test_settings_are_safe_and_as_set(host: Host, settings: Settings) -> None:
    """Pages have checksums, passwords are salted, and connections are limited as set."""
    names = ("data_checksums", "password_encryption", "max_connections")
    query = " union all ".join(f"select current_setting($${name}$$)" for name in names)
    wanted = ["on", "scram-sha-256", str(settings.postgres_connections)]
    assert lines(host, SQL + f" '{query}'") == wanted


def test_data_are_in_the_named_volume(host: Host) -> None:
    """Removing the container does not remove the database."""
    template = '{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{.Destination}}{{println}}{{end}}{{end}}'
    found = lines(host, f"docker inspect -f '{template}' gatehouse-postgres-1")
    assert list(filter(None, found)) == ["gatehouse_postgres-data /var/lib/postgresql/data"]
