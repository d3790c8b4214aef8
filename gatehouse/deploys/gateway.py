"""What one deploy works from: the settings, the host as it was found, and what is to be there."""

from dataclasses import dataclass, field

from pydantic import SecretStr
from pyinfra import config, host
from pyinfra.api.exceptions import DeployError

from gatehouse import images, signature
from gatehouse.deploys import card, preflight
from gatehouse.deploys.facts import Access, Host, HostFact
from gatehouse.deploys.guard import guarded
from gatehouse.deploys.lock import look
from gatehouse.providers import given
from gatehouse.render import Machine, Rendered, render, valid
from gatehouse.settings import Invalid, Settings, validate


@dataclass(frozen=True)
class Gateway:
    """One host's settings, what was found there, and what was rendered for it."""

    settings: Settings
    found: Host
    machine: Machine
    rendered: Rendered
    provider_keys: dict[str, SecretStr]
    lock: images.Lock = field(default_factory=dict)
    # Who must have signed LiteLLM's image; else why nobody is asked.
    signer: signature.Signer | None = None
    unsigned: str = ""


def this_gateway(action: str = "deploy") -> Gateway:
    """Read the settings and the host that pyinfra runs for now, before anything is changed.

    `action` is what the audit log calls it.

    Raises `DeployError` with everything that is wrong with the settings or cannot work here.
    """
    try:
        named = validate(host.data.dict())
        keys = given(named)
        lock = images.lock_of(named)
        signer, unsigned = signature.wanted(named)
    except Invalid as invalid:
        raise DeployError(f"the settings cannot be used, nothing was touched:\n{invalid}") from None
    settings = images.pinned(named, lock)
    become_root()
    # First: what is wrong with a host that is being changed may be the change.
    look()
    found = host.get_fact(
        HostFact,
        secrets_gid=settings.secrets_gid,
        model_files=preflight.model_files(settings),
    )
    preflight.refuse(settings, found)
    gpus = len(found.gpus.cards) if card.card(settings, found.gpus) == "nvidia" else 0
    machine = Machine(
        found.cores,
        found.memory_mib,
        found.provider_keys | keys.keys(),
        gpus=gpus,
        ssh_ports=found.ssh_ports,
        bridges=found.bridges,
    )
    rendered = render(settings, machine, lock)
    config = rendered.release["litellm/config.yaml"].content
    if wrong := valid.problems(config, machine.provider_keys):
        lines = "\n".join(f"  - {each}" for each in wrong)
        raise DeployError(f"LiteLLM's configuration is not right, nothing was touched:\n{lines}")
    guarded(rendered.release_id, settings.deploy_silence_seconds, action)
    return Gateway(settings, found, machine, rendered, keys, lock, signer, unsigned)


def become_root() -> None:
    """Use sudo for everything that follows, unless the connection is root's already.

    Raises `DeployError` where neither is possible.
    """
    if config.SUDO or host.data.get("_sudo") or config.SU_USER:
        return
    access = host.get_fact(Access, _sudo=False)
    if access == "none":
        raise DeployError(
            "this user is not root and may not use sudo without a password: connect as root "
            "(ssh_user), allow sudo, or run pyinfra with --sudo --use-sudo-password"
        )
    if access == "sudo":
        host.data._sudo = True  # noqa: SLF001 - pyinfra's name for it
