# ruff: noqa: INP001 -- a program of the image, not a module
"""Lay LiteLLM's user interface out for a read-only file system, and drop what no run reads.

Usage: slim.py SITE_PACKAGES UI_DIRECTORY
"""

import shutil
import sys
from pathlib import Path

# boto3's descriptions of all other services are most of botocore.
AWS_SERVICES = ("sts", "bedrock", "bedrock-runtime", "s3", "secretsmanager", "sso", "sso-oidc")


def serve_without_extension(directory: Path) -> None:
    """Turn each foo.html into foo/index.html, so that /ui/foo answers, and mark that it is done."""
    for page in sorted(directory.rglob("*.html")):
        if page.name != "index.html":
            target = page.with_suffix("") / "index.html"
            target.parent.mkdir(exist_ok=True)
            page.rename(target)
    # proxy_server.py, _is_ui_pre_restructured: without the mark it wants to write here.
    (directory / ".litellm_ui_ready").touch()


def main(site_packages: Path, ui: Path) -> None:
    """Change SITE_PACKAGES in place; UI_DIRECTORY is made."""
    packaged = site_packages / "litellm/proxy/_experimental/out"
    ui.parent.mkdir(parents=True)
    shutil.move(packaged, ui)
    # The start looks at the packaged interface too.
    packaged.symlink_to(ui)
    serve_without_extension(ui)
    for directory in [*site_packages.glob("*/tests"), *site_packages.glob("*/*/tests")]:
        shutil.rmtree(directory)
    for service in (site_packages / "botocore/data").iterdir():
        if service.is_dir() and service.name not in AWS_SERVICES:
            shutil.rmtree(service)
    for package in [*site_packages.glob("pip"), *site_packages.glob("pip-*")]:
        shutil.rmtree(package)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
