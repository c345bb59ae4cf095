"""Bills of materials of the images, CycloneDX 1.6 JSON, from the locks they are installed from.

python infra/sbom.py worker-gpu > worker-gpu.cdx.json    or worker-cpu, servers
"""

import sys
from pathlib import Path

from aligntune.bill import document, library, lines
from aligntune.digest import sha256

LOCKS = Path(__file__).resolve().parent / "lock"
IMAGES = {
    "worker-gpu": ("worker", "torch-gpu"),
    "worker-cpu": ("worker", "torch-cpu"),
    "servers": ("servers",),
}


def main(image: str = "") -> int:
    if image not in IMAGES:
        print(__doc__, file=sys.stderr)
        return 2
    files = [LOCKS / f"{name}.txt" for name in IMAGES[image]]
    parts = [library(*found) for file in files for found in lines(file.read_text("utf-8"))]
    locks = [{"name": f"lock:{file.name}:sha256", "value": sha256(file)} for file in files]
    main = {"type": "container", "bom-ref": image, "name": f"aligntune-{image}"}
    print(document(main | {"properties": locks}, parts, []), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
