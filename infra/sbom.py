"""Bills of materials of the images, CycloneDX 1.6 JSON, from the locks they are installed from.

python infra/sbom.py worker-gpu > worker-gpu.cdx.json    or worker-cpu, servers
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from aligntune.digest import sha256
from aligntune.sbom import document, library

LOCKS = Path(__file__).resolve().parent / "lock"
IMAGES = {
    "worker-gpu": ("worker", "torch-gpu"),
    "worker-cpu": ("worker", "torch-cpu"),
    "servers": ("servers",),
}
IMAGE = {"python_version": "3.11", "python_full_version": "3.11.13", "sys_platform": "linux"}


def main(image: str = "") -> int:
    if image not in IMAGES:
        print(__doc__, file=sys.stderr)
        return 2
    files = [LOCKS / f"{name}.txt" for name in IMAGES[image]]
    parts = [library(*found) for file in files for found in pinned(file.read_text("utf-8"))]
    locks = [{"name": f"lock:{file.name}:sha256", "value": sha256(file)} for file in files]
    main = {"type": "container", "bom-ref": image, "name": f"aligntune-{image}"}
    print(document(main | {"properties": locks}, parts, []), end="")
    return 0


def pinned(lock: str) -> Iterator[tuple[str, str, list[str]]]:
    """(name, version, sha256 of its files) of each distribution that the image has."""
    for entry in lock.replace("\\\n", " ").splitlines():
        text, *hashes = entry.split(" --hash=sha256:")
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate(dict(IMAGE)):
            (pin,) = wanted.specifier
            yield wanted.name, pin.version, [digest.strip() for digest in hashes]


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
