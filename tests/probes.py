"""What the probes print on a host on which every check holds."""

import json
from typing import Any

from gatehouse.checks.backup import known
from gatehouse.checks.docker import STACK
from gatehouse.checks.host import directories, disk
from gatehouse.checks.litellm import SELFTEST, address
from gatehouse.checks.network import SOCKETS
from gatehouse.checks.postgres import database
from gatehouse.checks.privacy import QUIET, promises
from gatehouse.checks.probe import probe
from gatehouse.checks.secrets import HELD
from gatehouse.render import Rendered
from gatehouse.render.tree import CURRENT
from gatehouse.settings import Settings

Document = dict[str, Any]


def container(service: str, release: Document) -> Document:
    """Give a container as the probe `stack` shows it."""
    job = service == "litellm-migrate"
    return {
        "name": f"gatehouse-{service}-1",
        "service": service,
        **release[service],
        "image_id": "sha256:" + "0" * 64,
        "newest": True,
        "status": "exited" if job else "running",
        "health": "none" if job else "healthy",
        "exit_code": 0,
        "read_only": True,
        "cap_drop": ["ALL"],
        "cap_add": [],
        "security_opt": ["no-new-privileges:true"],
        "privileged": False,
        "user": "65534:65534",
        "memory": 2**30,
        "cpus": 10**9,
        "pids": 100,
        "mounts": ["/etc/gatehouse/secrets/master_key"],
    }


def documents(settings: Settings, rendered: Rendered) -> dict[str, Document]:
    """Give command → document, for the commands that print one."""
    manifest = json.loads(rendered.files[f"{CURRENT}/manifest.json"].content)
    release = manifest["services"]
    subnets = {
        "edge": settings.network_subnet,
        "inner": settings.network_inner_subnet,
        "engines": settings.network_engines_subnet,
    }
    host = str(settings.network_bind_address)
    found: dict[str, Document] = {
        STACK: {
            "version": "28.3.3",
            "live_restore": settings.docker_live_restore,
            "containers": [container(service, release) for service in release],
            "networks": {name: str(subnet) for name, subnet in subnets.items()},
            "release": release,
            "engines": rendered.engines,
            "images": manifest["images"],
            "unlike": [],
            "configuration": promises(settings),
            "environment": QUIET | dict.fromkeys(HELD, "same"),
        },
        disk(settings): {
            "directories": directories(settings),
            "changed": [],
            "modes": [],
            "writable": [],
            "secrets": [],
            "secret_modes": [],
            "units": [unit("gatehouse-firewall.service")],
            "rooms": {"/": 100 * 1024},
            "memory": {"total": 32768, "available": 16384},
            "leftovers": [],
        },
        database(settings): {
            "server": {
                "limit": settings.postgres_connections,
                "connections": 10,
                "idle": 0,
                "pooled": 9,
                "locks": 0,
                "bytes": 20 * 2**20,
            },
            "spend": {"bytes": 2**20, "day": 100, "rows": 1000, "oldest_days": 9.5},
            "prompts": 0,
            "keys": [],
            "admin": ["proxy_admin"],
            "missing_tables": [],
            "migrations": {"missing": [], "failed": []},
        },
        probe("gateway", address(settings), SELFTEST): {
            "liveness": 200,
            "readiness": {"status": 200, "db": "connected"},
            "anonymous": 401,
            "unlisted": [],
            "completion": {"object": "chat.completion", "seconds": 0.05},
            "unreadable": [],
            "page": True,
        },
        probe("cache", host, str(settings.redis_port)): {
            "anonymous": "-NOAUTH Authentication required.",
            "login": "+OK",
            "milliseconds": 0.2,
            "info": {
                "used_memory": "1092640",
                "maxmemory": str(settings.redis_maxmemory_mib * 2**20),
                "evicted_keys": "0",
                "expired_keys": "12",
            },
        },
        probe("login", address(settings), settings.litellm_admin_user): {"login": "a session"},
        probe("leaks", settings.models_dir): {"places": []},
        known(settings): {"backup": remembered(), "restore": "none", "aside": []},
    }
    return found


def remembered(**changes: object) -> Document:
    """Give what is remembered on a host whose backups are good, with changes."""
    now = 1_795_000_000.0
    made = {"at": now - 3600, "snapshot": "0123abcd", "seconds": 4.0}
    return {
        "now": now,
        "since": now - 30 * 86400,
        "there": True,
        "backup": {
            "first": now - 20 * 86400,
            "last": {"at": made["at"], "ok": True, "error": ""},
            "good": made,
            "verify": {"at": made["at"], "ok": True, "error": "", "part": 3},
            "repository": {"location": "/var/lib/gatehouse/backup/repository"},
            "shown": now - 19 * 86400,
        },
        "drill": {"last": {"at": made["at"], "ok": True, "error": ""}, "good": made},
    } | changes


def unit(name: str, **changes: object) -> Document:
    """Give a unit that runs, with changes."""
    return {
        "unit": name,
        "active": "active",
        "enabled": "enabled",
        "result": "success",
        "runs": True,
        "installed": True,
    } | changes


def printed(document: Document, **errors: str) -> str:
    """Write a document as a probe does."""
    return json.dumps({**document, "errors": errors}) + "\n"


def sockets(settings: Settings) -> str:
    """Give the kernel's table: Docker listens for the services, systemd for engines."""
    address = settings.network_bind_address
    lines = [
        f'LISTEN 0 4096 {address}:{port} 0.0.0.0:* users:(("docker-proxy",pid={port},fd=4))'
        for port in (settings.litellm_port, settings.postgres_port, settings.redis_port)
    ]
    lines += [
        f'LISTEN 0 4096 {address}:{engine.port} 0.0.0.0:* users:(("systemd",pid=1,fd=40))'
        for engine in settings.active_engines
    ]
    lines += [
        f'LISTEN 0 4096 {settings.health_address}:{port} 0.0.0.0:* users:(("systemd",pid=1,fd=9))'
        for port in (settings.health_port, settings.metrics_port)
    ]
    return "\n".join([*lines, 'LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=84,fd=6))'])


def answers(settings: Settings, rendered: Rendered) -> dict[str, str]:
    """Give command → output, for every command that is no shell's look for something wrong."""
    found = {command: printed(each) for command, each in documents(settings, rendered).items()}
    return found | {
        SOCKETS: sockets(settings),
    }
