"""Dockerfile.mailpod, built for real: that it builds, that what comes out is small-minded (no compiler, no root) and that it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache"
TAG = "localhost/postroom-mailpod-test"

pytestmark = [
    pytest.mark.skipif(
        not shutil.which("buildah") or not shutil.which("debootstrap"), reason="buildah or debootstrap is not to be had here"
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap needs root"),
    pytest.mark.timeout(1500),
]


def _run(*command: str, timeout: float = 1200) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)
    assert done.returncode == 0, f"{command}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _mirror() -> str:
    """The Debian mirror that this machine's apt uses, so that the test asks no other host."""
    return next(
        line.split(" ")[0].strip("'")
        for line in _run("apt-get", "indextargets", "--format", "$(REPO_URI)").splitlines()
        if "debian" in line
    )


@pytest.fixture(scope="module")
def base() -> str:
    """A base image with Python, made from Debian's packages: no container registry is asked."""
    archive = CACHE / "base-bookworm.tar"
    if not archive.exists():
        CACHE.mkdir(exist_ok=True)
        tree = CACHE / "base-bookworm"
        shutil.rmtree(tree, ignore_errors=True)
        _run("debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", "bookworm", str(tree), _mirror())
        shutil.rmtree(tree / "var/cache/apt", ignore_errors=True)
        shutil.rmtree(tree / "var/lib/apt/lists", ignore_errors=True)
        _run("tar", "-C", str(tree), "--exclude=./dev/*", "--exclude=./proc/*", "--exclude=./sys/*", "-cf", f"{archive}.part", ".")
        shutil.rmtree(tree)
        Path(f"{archive}.part").rename(archive)
    context = CACHE / "base-context"
    context.mkdir(exist_ok=True)
    (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
    (context / "base.tar").unlink(missing_ok=True)
    os.link(archive, context / "base.tar")
    _run("buildah", "bud", "--isolation", "chroot", "--layers", "-t", "localhost/postroom-base:bookworm", str(context))
    return "localhost/postroom-base:bookworm"


@pytest.fixture(scope="module")
def image(base: str) -> Iterator[str]:
    """The mail pod's image."""
    # The certificates of this machine, since its package index may be a mirror with its own authority; pip's settings likewise.
    pip = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_INDEX", "UV_DEFAULT_INDEX", "SSL_CERT"))}
    variables = [f"--env={name}={value}" for name, value in pip.items() if name != "PIP_FIND_LINKS"]
    _run(
        "buildah", "bud", "--isolation", "chroot", "--build-arg", f"BASE={base}", *variables,
        "-v", "/etc/ssl/certs:/etc/ssl/certs:ro", "-f", "Dockerfile.mailpod", "-t", TAG, ".",
    )  # fmt: skip
    yield TAG
    subprocess.run(["buildah", "rmi", TAG], capture_output=True, check=False)


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[str]:
    """A container of it to run commands in."""
    name = _run("buildah", "from", image).strip()
    yield name
    subprocess.run(["buildah", "rm", name], capture_output=True, check=False)


def test_the_image_runs_as_nobody_and_knows_its_command(image: str, container: str):
    """A pod under the "restricted" security standard would be refused, or the server would run with root's rights."""
    config = json.loads(_run("buildah", "inspect", "--type", "image", image))["OCIv1"]["config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["mailpod"]
    assert "serve" in _run("buildah", "run", "--isolation", "chroot", container, "--", "mailpod", "--help")
    assert _run("buildah", "run", "--isolation", "chroot", container, "--", "id", "-u").strip() == "10001"


def test_no_compiler_and_no_operator_in_the_image(container: str):
    """An intruder would find tools, and each pull would carry megabytes that nothing uses."""
    absent = "for tool in gcc cc make git uv; do command -v $tool && exit 1; done; exit 0"
    _run("buildah", "run", "--isolation", "chroot", container, "--", "sh", "-c", absent)
    code = "from importlib.util import find_spec as f; assert f('obstore') and not f('mailoperator') and not f('pytest') and not f('kopf')"
    _run("buildah", "run", "--isolation", "chroot", container, "--", "/opt/mailpod/bin/python", "-c", code)
