"""Make each host of the inventory a private LLM gateway: `pyinfra inventory deploy.py`."""

from gatehouse.deploys import (
    docker,
    firewall,
    health,
    host,
    images,
    litellm,
    postgres,
    redis,
    release,
    secrets,
)
from gatehouse.deploys.gateway import this_gateway

# Reads the settings, asks the host what it is, and refuses what cannot work; changes nothing.
gateway = this_gateway()

host.deploy(gateway)
# Before Docker: no container ever runs without the rules.
firewall.deploy(gateway)
docker.deploy(gateway)
secrets.deploy(gateway)
# Everything that can be missing or wrong is looked at before anything is switched.
images.deploy(gateway)
release.deploy(gateway)
# In the order in which they need each other; each is waited for until it is healthy.
postgres.deploy(gateway)
redis.deploy(gateway)
litellm.deploy(gateway)
health.deploy(gateway)
