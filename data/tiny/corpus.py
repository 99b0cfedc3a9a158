"""Build the text that every model of the tiny experiment reads: the C sources of a Linux kernel, as bytes.

    python data/tiny/corpus.py                 # fetches Debian's package linux-source-6.1 with apt-get
    python data/tiny/corpus.py --package x.deb # or takes a package that is there already

It leaves `train.bin`, `valid.bin` and `corpus.json` (version, sizes, hashes) in data/tiny/work/. The text is only
trained on; none of it, and no model that has read it, is committed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import re
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = HERE / "work"
PACKAGE = "linux-source-6.1"
SHUFFLE_SEED = 20250212
LARGEST_FILE = 200_000  # bytes; larger ones are tables of registers
MOST_DIGITS = 0.12  # share of the bytes; more is a table of numbers
LONG_PARAGRAPH = 40  # bytes; an exact repeat of a longer paragraph is dropped (licence headers, copied functions)
VALIDATION_BYTES = 2_000_000
PRINTABLE = bytes([9, 10, *range(32, 127)])
UNPRINTABLE = bytes(sorted(set(range(256)) - set(PRINTABLE)))
DIGITS = b"0123456789"


def stored() -> list[dict]:
    """The texts that runs of the log used, the text of the tables first; data/tiny/corpus.json describes them."""
    path = HERE / "corpus.json"
    return json.loads(path.read_text()) if path.exists() else []


def fetch(folder: Path) -> Path:
    """The Debian package of the kernel's source, fetched into `folder`: the stored runs' version if it can be had."""
    versions = [f"{PACKAGE}={corpus['version']}" for corpus in stored()]
    for wanted in [*versions, PACKAGE]:
        done = subprocess.run(["apt-get", "download", "-q", wanted], cwd=folder, stdout=subprocess.DEVNULL)
        if done.returncode == 0:
            break
    else:
        raise SystemExit(f"apt-get could not fetch {PACKAGE}: try `apt-get update`, or give a package with --package")
    return next(folder.glob(f"{PACKAGE}_*.deb"))


def c_files(package: Path) -> tuple[str, list[tuple[str, bytes]]]:
    """Version of the package, and its C files as (name, bytes) in sorted order."""
    version = subprocess.run(["dpkg-deb", "-f", package, "Version"], check=True, capture_output=True, text=True)
    with tempfile.TemporaryDirectory(dir=package.parent) as folder:
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        source = next(Path(folder).glob("usr/src/*.tar.xz"))
        with tarfile.open(source) as tar:
            files = [(m.name, tar.extractfile(m).read()) for m in tar if m.isfile() and m.name.endswith(".c")]
    return version.stdout.strip(), sorted(files)


def is_code(text: bytes) -> bool:
    """Whether a file is plain ASCII text of usual size rather than a table of numbers."""
    if not 0 < len(text) <= LARGEST_FILE or not text.isascii():
        return False
    digits = len(text) - len(text.translate(None, DIGITS))
    return digits <= MOST_DIGITS * len(text)


def without_repeats(text: bytes, seen: set[bytes]) -> bytes:
    """The text without unprintable bytes and without long paragraphs that are in `seen`, which is added to."""
    kept = []
    for paragraph in re.split(rb"\n\s*\n", text.translate(None, UNPRINTABLE)):
        if len(paragraph) > LONG_PARAGRAPH:
            key = hashlib.blake2b(paragraph, digest_size=12).digest()
            if key in seen:
                continue
            seen.add(key)
        if paragraph.strip():
            kept.append(paragraph.strip(b"\n"))
    return b"\n\n".join(kept) + b"\n\n" if kept else b""


def entropy(text: bytes) -> float:
    """Entropy of single bytes, in nats."""
    counts = [text.count(bytes([b])) for b in PRINTABLE]
    return -sum(n / len(text) * math.log(n / len(text)) for n in counts if n)


def build(package: Path) -> dict:
    """Write train.bin, valid.bin and corpus.json into the work folder; return what corpus.json says."""
    started = time.time()
    version, files = c_files(package)
    found = len(files)
    files = [text for _, text in files if is_code(text)]
    random.Random(SHUFFLE_SEED).shuffle(files)
    seen: set[bytes] = set()
    valid, train = bytearray(), bytearray()
    for text in files:  # validation comes first, so that a repeat of its text is dropped from the training text
        (valid if len(valid) < VALIDATION_BYTES else train).extend(without_repeats(text, seen))
    card = {
        "package": PACKAGE,
        "version": version,
        "package_sha256": hashlib.sha256(package.read_bytes()).hexdigest(),
        "files_found": found,
        "files_kept": len(files),
        "train_bytes": len(train),
        "valid_bytes": len(valid),
        "train_sha256": hashlib.sha256(train).hexdigest(),
        "valid_sha256": hashlib.sha256(valid).hexdigest(),
        "distinct_bytes": len(set(train)),
        "unigram_entropy_nats": round(entropy(bytes(train)), 4),
    }
    for name, text in (
        ("train.bin", train),
        ("valid.bin", valid),
        ("corpus.json", json.dumps(card, indent=1).encode()),
    ):
        unfinished = WORK / f"{name}.part"
        unfinished.write_bytes(text)
        unfinished.replace(WORK / name)
    print(f"{card['train_bytes'] / 1e6:.1f} MB to train on, {card['valid_bytes'] / 1e6:.2f} MB held out")
    print(f"from {card['files_kept']} of {found} files of {PACKAGE} {version}, in {time.time() - started:.0f} s")
    if card["train_sha256"] not in {corpus["train_sha256"] for corpus in stored()}:
        print(
            "The stored runs read another version of this text. Add work/corpus.json to the list in corpus.json before making runs."
        )
    return card


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, help="a linux-source package that is there already")
    parser.add_argument("--force", action="store_true", help="build it again although it is there")
    args = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    if (WORK / "corpus.json").exists() and not args.force:
        print(f"the corpus is there: {WORK / 'corpus.json'} (--force builds it again)")
        return
    package = args.package or next(WORK.glob(f"{PACKAGE}_*.deb"), None) or fetch(WORK)
    build(package)


if __name__ == "__main__":
    main()
