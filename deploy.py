"""Make each host of the inventory a private LLM gateway: `pyinfra inventory deploy.py`."""

from gatehouse.deploys import (
    backup,
    docker,
    engines,
    firewall,
    gpu,
    health,
    host,
    images,
    keys,
    litellm,
    metrics,
    postgres,
    redis,
    release,
    secrets,
    timers,
    venv,
)
from gatehouse.deploys.gateway import this_gateway

# Reads the settings, asks the host what it is, and refuses what cannot work; changes nothing.
gateway = this_gateway()

host.deploy(gateway)
# Before Docker: no container ever runs without the rules.
firewall.deploy(gateway)
docker.deploy(gateway)
# Where there is a card: what lets containers use it.
gpu.deploy(gateway)
secrets.deploy(gateway)
backup.deploy(gateway)
# Everything that can be missing or wrong is looked at before anything is switched.
images.deploy(gateway)
# What the engines' units run; `gatehouse` for people.
venv.deploy(gateway)
release.deploy(gateway)
# In the order in which they need each other; each is waited for until it is healthy.
postgres.deploy(gateway)
redis.deploy(gateway)
# Ready to be woken; none is started.
engines.deploy(gateway)
litellm.deploy(gateway)
keys.deploy(gateway)
# What runs by itself from now on.
timers.deploy(gateway)
metrics.deploy(gateway)
health.deploy(gateway)
