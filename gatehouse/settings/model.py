"""All settings together."""

from gatehouse.settings.alerts import AlertsSettings
from gatehouse.settings.audit import AuditSettings
from gatehouse.settings.backup import BackupSettings
from gatehouse.settings.deploy import DeploySettings
from gatehouse.settings.docker import DockerSettings
from gatehouse.settings.engines import Engine, EnginesSettings, active
from gatehouse.settings.firewall import FirewallSettings
from gatehouse.settings.gpu import GpuSettings
from gatehouse.settings.health import HealthSettings
from gatehouse.settings.host import HostSettings
from gatehouse.settings.images import ImagesSettings
from gatehouse.settings.keys import KeysSettings
from gatehouse.settings.knowledge import KnowledgeSettings
from gatehouse.settings.litellm import LitellmSettings
from gatehouse.settings.mcp import McpSettings
from gatehouse.settings.metrics import MetricsSettings
from gatehouse.settings.models import Model, ModelsSettings
from gatehouse.settings.network import NetworkSettings
from gatehouse.settings.postgres import PostgresSettings
from gatehouse.settings.redis import RedisSettings
from gatehouse.settings.secrets import SecretsSettings
from gatehouse.settings.timers import OFF, TimersSettings

COMPONENTS = (
    HostSettings,
    DeploySettings,
    DockerSettings,
    NetworkSettings,
    FirewallSettings,
    ImagesSettings,
    SecretsSettings,
    PostgresSettings,
    RedisSettings,
    LitellmSettings,
    KeysSettings,
    ModelsSettings,
    EnginesSettings,
    GpuSettings,
    McpSettings,
    HealthSettings,
    MetricsSettings,
    AlertsSettings,
    BackupSettings,
    KnowledgeSettings,
    TimersSettings,
    AuditSettings,
)


class Settings(
    HostSettings,
    DeploySettings,
    DockerSettings,
    NetworkSettings,
    FirewallSettings,
    ImagesSettings,
    SecretsSettings,
    PostgresSettings,
    RedisSettings,
    LitellmSettings,
    KeysSettings,
    ModelsSettings,
    EnginesSettings,
    GpuSettings,
    McpSettings,
    HealthSettings,
    MetricsSettings,
    AlertsSettings,
    BackupSettings,
    KnowledgeSettings,
    TimersSettings,
    AuditSettings,
):
    """Every setting of one host, valid by itself and in combination."""

    @property
    def all_models(self) -> list[Model]:
        """The shipped models and the operator's own."""
        return [*self.models, *self.models_extra]

    @property
    def all_engines(self) -> list[Engine]:
        """The shipped engines and the operator's own."""
        return [*self.engines, *self.engines_extra]

    @property
    def active_engines(self) -> list[Engine]:
        """The engines that are on, in their order."""
        return active(self.all_engines, self.all_models, self.models_enable)

    @property
    def health_address(self) -> str:
        """Where the page and the metrics listen: nobody logs in, so never more than loopback."""
        bind = self.network_bind_address
        return str(bind) if bind.is_loopback else "127.0.0.1"

    @property
    def timers_on(self) -> list[str]:
        """The jobs that run by themselves; fetching prices and making backups can be off."""
        jobs = {
            key.removeprefix("timers_"): getattr(self, key) for key in TimersSettings.model_fields
        }
        if not self.knowledge_refresh:
            del jobs["knowledge"]
        if not self.backup_enabled:
            del jobs["backup"], jobs["drill"]
        return [name for name, when in jobs.items() if when != OFF]

    @property
    def metrics_addresses(self) -> list[str]:
        """Where the metrics listen: for a Prometheus in a container on the bridge, too."""
        bridge = [str(self.network_subnet[1])] if self.metrics_prometheus else []
        return [f"{address}:{self.metrics_port}" for address in (self.health_address, *bridge)]

    @property
    def provider_keys(self) -> frozenset[str]:
        """Names of the secrets that any model or MCP server would use."""
        models = {model.api_key for model in self.all_models if model.api_key}
        servers = {server.auth_key for server in self.mcp_servers if server.auth_key}
        return frozenset(models | servers)
