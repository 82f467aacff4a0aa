"""Peak memory of walking a benchmark's rows: python -m tests.benchmarks.bench_rows [--rows 1000 10000]

Writes synthetic parquet files with one picture a row, in the mirrors' row groups of 100 rows and (the worst case) in
one row group, and walks each in a process of its own, every picture decoded. Flat means: ten times the rows, the same
peak. The process's memory after its imports is printed for comparison. Linux only (/proc).
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WALK = """
import sys
import pyarrow.parquet
from PIL import Image
from vargpt_lightning.evaluation.formats.layouts import read_parquet
def peak():  # getrusage would tell the parent's peak where that is higher
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
Image.init()
before = peak()
pixels = 0
rows = read_parquet(sys.argv[1])
for row in rows:
    pixels += row["image"].open().width
after = peak()
print(before / 1024, after / 1024, len(rows), pixels)
"""


def write(path: Path, rows: int, kilobytes: int, group: int) -> None:
    """Writes rows of different pictures of about that size."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    side = int((kilobytes * 1024 / 3) ** 0.5)
    generator = np.random.default_rng(0)
    pool = []
    for _ in range(64):
        content = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(content, "PNG")
        pool.append(content.getvalue())
    kinds = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("question_id", pa.int64()), ("question", pa.string()), ("image", kinds)])
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for start in range(0, rows, group):
            numbers = range(start, min(start + group, rows))
            # The end of the bytes differs, so that no row's picture is another's in memory.
            pictures = [{"bytes": pool[n % 64] + n.to_bytes(8), "path": f"{n}.png"} for n in numbers]
            columns = {"question_id": list(numbers), "question": ["What is it?"] * len(numbers), "image": pictures}
            writer.write_table(pa.table(columns, schema=schema), row_group_size=group)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--kilobytes", type=int, default=30)
    arguments = parser.parse_args()
    print("row group | rows | file MB | MB after imports | peak MB | seconds")
    with tempfile.TemporaryDirectory() as folder:
        for whole in (False, True):
            for rows in arguments.rows:
                path = Path(folder) / "test-00000-of-00001.parquet"
                group = rows if whole else 100
                write(path, rows, arguments.kilobytes, group)
                start = time.perf_counter()
                command = [sys.executable, "-c", WALK, str(path)]
                found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                seconds = time.perf_counter() - start
                size = path.stat().st_size / 2**20
                before, after = float(found[0]), float(found[1])
                print(f"{group:9d} | {rows} | {size:.0f} | {before:.0f} | {after:.0f} | {seconds:.1f}")


if __name__ == "__main__":
    main()
