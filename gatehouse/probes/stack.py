"""Containers: how they run, what they run with, and what LiteLLM's process really has."""

import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

from gatehouse.probes.common import (
    CURRENT,
    containers,
    docker,
    first_child,
    manifest,
    process_of,
    tell,
)

CONFIG = "etc/gatehouse/config.yaml"
SECRETS = "/etc/gatehouse/secrets"
# Variables of LiteLLM's process that are no secret.
PLAIN = (
    "LITELLM_MODE",
    "LITELLM_LOG",
    "LITELLM_OFFLINE_MODE",
    "LITELLM_TELEMETRY_DISABLED",
    "LITELLM_LOCAL_MODEL_COST_MAP",
    "LITELLM_DISABLE_LATEST_RELEASE_CHECK",
    "CHECKPOINT_DISABLE",
)
HELD = {
    "LITELLM_MASTER_KEY": "master_key",
    "LITELLM_SALT_KEY": "salt_key",
    "UI_PASSWORD": "ui_password",
    "REDIS_PASSWORD": "redis_password",
}
# `key: value` of two levels is all that is looked up in the configuration.
LINE = re.compile(r"^  (\w+): (\S+)$", re.MULTILINE)


def reduced(found: dict[str, Any]) -> dict[str, Any]:
    """Give what checks read of a container."""
    host, state, config = found["HostConfig"], found["State"], found["Config"]
    return {
        "name": found["Name"].lstrip("/"),
        "service": config["Labels"].get("com.docker.compose.service", ""),
        "inputs": config["Labels"].get("gatehouse.inputs", ""),
        "image": config["Image"],
        "image_id": found["Image"],
        "newest": current_image(config["Image"]) in ("", found["Image"]),
        "status": state["Status"],
        "health": (state.get("Health") or {}).get("Status", "none"),
        "exit_code": state["ExitCode"],
        "read_only": host["ReadonlyRootfs"],
        "cap_drop": host["CapDrop"] or [],
        "cap_add": host["CapAdd"] or [],
        "security_opt": host["SecurityOpt"] or [],
        "privileged": host["Privileged"],
        "user": config["User"],
        "memory": host["Memory"],
        "cpus": host["NanoCpus"],
        "pids": host["PidsLimit"] or 0,
        "mounts": [each["Source"] for each in found["Mounts"] if each["Type"] == "bind"],
    }


def current_image(reference: str) -> str:
    """Give the id of the image that a reference means now, or nothing."""
    try:
        return str(json.loads(docker(f"/images/{reference}/json"))["Id"])
    except OSError:
        return ""


def unlike(found: list[dict[str, Any]]) -> list[str]:
    """Give the files of the release that a running container sees with another content."""
    wanted = manifest()["files"]
    others = []
    for each in found:
        pid = each["State"]["Pid"]
        for mount in each["Mounts"]:
            file = wanted.get(mount["Source"])
            if not pid or not file or not mount["Source"].startswith(CURRENT):
                continue
            seen = Path(f"/proc/{pid}/root{mount['Destination']}").read_bytes()
            if hashlib.sha256(seen).hexdigest() != file["sha256"]:
                others.append(f"{each['Name'].lstrip('/')} has another {mount['Source']}")
    return others


def configuration(found: list[dict[str, Any]]) -> dict[str, str]:
    """Give the plain lines of LiteLLM's configuration, as its container sees it."""
    lines: dict[str, str] = {}
    for pid in process_of("litellm", found):
        lines.update(LINE.findall(Path(f"/proc/{pid}/root/{CONFIG}").read_text()))
    return lines


def environment(found: list[dict[str, Any]]) -> dict[str, str]:
    """Give LiteLLM's variables: plain ones, and of secrets whether they are those on disk."""
    seen: dict[str, str] = {}
    for pid in process_of("litellm", found):
        raw = Path(f"/proc/{first_child(pid)}/environ").read_bytes().split(b"\0")
        values = dict(each.partition(b"=")[::2] for each in raw)
        seen |= {name: values.get(name.encode(), b"").decode() for name in PLAIN}
        for name, file in HELD.items():
            on_disk = Path(SECRETS, file).read_bytes().strip()
            same = hmac.compare_digest(values.get(name.encode(), b""), on_disk)
            seen[file] = "same" if same else "different"
    return seen


def networks() -> dict[str, str]:
    """Give the first subnet of each network of the stack."""
    return {
        each["Name"].removeprefix("gatehouse_"): config["Subnet"]
        for each in json.loads(docker("/networks"))
        if each["Name"].startswith("gatehouse_")
        for config in (each["IPAM"]["Config"] or [])[:1]
    }


def main() -> None:
    """Ask Docker once, and answer."""
    info = json.loads(docker("/info"))
    found = containers()
    tell(
        {
            "version": lambda: info["ServerVersion"],
            "live_restore": lambda: info["LiveRestoreEnabled"],
            "containers": lambda: [reduced(each) for each in found],
            "networks": networks,
            "release": lambda: manifest()["services"],
            "engines": lambda: manifest()["engines"],
            "images": lambda: manifest()["images"],
            "unlike": lambda: unlike(found),
            "configuration": lambda: configuration(found),
            "environment": lambda: environment(found),
        }
    )


if __name__ == "__main__":
    main()
