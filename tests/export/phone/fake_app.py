"""What the fake phone's `am instrument` starts: the sample app, by the contract; and its ways to fail."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

phone = Path(os.environ["PHONE"])
mapped = str(phone / "root") + "/data/local/tmp"


def main() -> None:
    place = Path(sys.argv[1])
    behaviour = (phone / "app.behaviour").read_text().strip()
    plan = json.loads(place.read_text())
    if behaviour == "no benchmark":
        print("INSTRUMENTATION_FAILED: org.mobiledistill.sample/.BenchmarkInstrumentation")
        return
    if behaviour == "hangs":
        (phone / "app.pid").write_text(str(os.getpid()))
        time.sleep(600)
    if behaviour == "crashes":
        print("INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0")
        return
    folder = phone / ("root/sdcard/Android/data/org.mobiledistill.sample" if behaviour == "outside" else "app")
    folder = folder / "files/benchmark"
    folder.mkdir(parents=True, exist_ok=True)
    result = measure(plan, behaviour, folder)
    text = json.dumps(result)
    (folder / f"{plan['id']}.json").write_text(
        {"garbage": "\x00\xff{]", "cut": text[: len(text) // 2]}.get(behaviour, text)
    )
    print(f"INSTRUMENTATION_RESULT: id={plan['id']}")
    print(f"INSTRUMENTATION_CODE: {-1 if result['error'] is None else 0}")


def measure(plan: dict, behaviour: str, folder: Path) -> dict:
    def read(part: dict) -> bytes:
        path = part["path"].replace("/data/local/tmp", mapped, 1)
        data = Path(path).read_bytes()
        assert hashlib.sha256(data).hexdigest() == part["sha256"], path
        assert os.stat(path).st_mode & 0o444 == 0o444, "apps may not read it"
        return data

    assert re.fullmatch("[0-9a-f]{16}", plan["id"])
    read(plan["model"])
    shown = read(plan["input"])
    assert len(shown) == plan["input"]["count"] * plan["input"]["shape"][1] ** 2 * 3
    result = {
        "format": 1, "id": plan["id"], "measure": plan["measure"], "app": "0.1.0", "runtime": "TensorFlow Lite 2.16.1",
        "abi": "arm64-v8a", "model_sha256": plan["model"]["sha256"], "threads": plan["threads"],
        "delegate": plan["delegate"], "load_ms": 12.5, "samples_ms": [], "memory": None, "outputs": None, "error": None,
    }  # fmt: skip
    if behaviour == "refuses":
        message = "Internal error: cannot create interpreter"
        return {**result, "load_ms": None, "error": {"kind": "model", "message": message}}
    if plan["measure"] == "memory":
        result["memory"] = {"before_kb": 60_000, "peak_kb": 71_000}
    if plan["measure"] == "parity":
        said = (phone / "answers" / plan["model"]["sha256"]).read_bytes()
        shape = json.loads((phone / "answers" / f"{plan['model']['sha256']}.json").read_text())
        if behaviour == "wrong answers":
            said = said[4:] + said[:4]  # every value in the place of its neighbour
        (folder / f"{plan['id']}.outputs").write_bytes(said)
        result["outputs"] = {
            "file": f"{plan['id']}.outputs", "sha256": hashlib.sha256(said).hexdigest(), "bytes": len(said),
            "count": plan["input"]["count"], "dtype": "float32", "shape": shape,
        }  # fmt: skip
    if plan["measure"] == "latency":
        slower = 1.0
        if behaviour == "drifts":
            count = phone / "app.count"
            number = int(count.read_text()) if count.exists() else 0
            count.write_text(str(number + 1))
            slower = 1 + 0.2 * number
        result["samples_ms"] = [slower * (8 + k % 5) / plan["threads"] for k in range(plan["runs"])]
    if behaviour == "not a number":
        result["samples_ms"] = [float("nan")] * plan["runs"]
    if behaviour == "too few":
        result["samples_ms"] = result["samples_ms"][1:]
    if behaviour == "another file":
        result["model_sha256"] = "0" * 64
    return result


main()
