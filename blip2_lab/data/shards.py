"""WebDataset shards: many images in few files.

`pack` writes shards, `ShardFolder` reads them from disk by index. streams.py reads them over the network.

Notes:

* A shard is an uncompressed tar file; consecutive files with the same stem are one sample (`0007.jpg`, `0007.txt`,
  `0007.json`). On disk its index is read once and every image is read at its offset. Shards are therefore sources by
  index, and a batch is a function of its number.
* A tar file ends in two blocks of zeros. tarfile takes a header that is cut off, or damaged, for the end; so the two
  blocks are looked for, and a shard without them is refused, with and without `shards.json`.
* `pack` stores the bytes of the image files unchanged, and `shards.json` with counts and checksums. The same images
  give the same bytes. The webdataset library can read the result.
* Shards of other tools may have any `json`. What of it is of another form is not used, and named (`Record.unread`).

Paper: section 3.4 (129 M pairs from the web). Notebook: 08.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from blip2_lab.common.characters import printable
from blip2_lab.common.files import flush, write_atomically
from blip2_lab.common.images import SUFFIXES, UNREAD_SUFFIXES, BrokenSample, open_image, walk_files
from blip2_lab.data.examples import (
    AskedQuestion,
    Box,
    Example,
    ImageTextList,
    LeftOut,
    Record,
    count_causes,
    left_out_report,
    skip_report,
)
from blip2_lab.data.image_folder import OWN_FILES, UNREAD_TEXTS
from blip2_lab.data.picture_files import identity
from blip2_lab.data.text_files import (
    NO_TEXT,
    captions_in,
    decode_text,
    is_number,
    parse_json,
    read_text,
    texts_in,
    turns_in,
)

INDEX_FILE = "shards.json"
IMAGE_ENDINGS = tuple(suffix[1:] for suffix in SUFFIXES)
TEXT_ENDINGS = ("txt", "text", "caption")
READ_ENDINGS = frozenset((*IMAGE_ENDINGS, *TEXT_ENDINGS, "json"))
#: Of files beside shards that may have pictures or captions: they are named.
MAY_HAVE_EXAMPLES = frozenset((*UNREAD_TEXTS, *SUFFIXES, *UNREAD_SUFFIXES, ".txt"))
COMPRESSED = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tgz", ".tbz2", ".txz")


# -------------------------------------------------------------------------------------------------------- one sample


def record_of(key: str, files: dict[str, bytes], shard: str = "") -> Record:
    """The files of one sample, by ending -> a record. Raises BrokenSample when there is no image or no text.

    `json` may have captions, questions, boxes, id and domain as `pack` writes them, or one caption; without captions
    there, `txt` is the caption (img2dataset's layout). `shard` is put before the key of a sample without an id of ours:
    two shards may both begin at key 0.
    """
    pictures = [ending for ending in IMAGE_ENDINGS if ending in files]
    name = printable(f"{shard}/{key}" if shard else key)
    if not pictures:
        listed = ", ".join(sorted(files)[:8]) or "none"
        message = (
            f"sample {name!r} has no picture ({', '.join(IMAGE_ENDINGS[:3])}, …): the endings of its files are {listed}"
        )
        raise BrokenSample("sample without a picture", message)
    unread = [f"{ending} is not used, because there is a {pictures[0]}" for ending in pictures[1:]]
    about = _json_of(files, unread)
    captions = _captions_of(files, about, unread)
    questions, boxes = _questions_of(about, unread), _boxes_in(about.get("boxes"), unread)
    if not captions and not questions:
        cause = "unreadable text" if unread[len(pictures) - 1 :] else "empty caption"
        keys = f" (the keys of its json are {', '.join(map(repr, list(about)[:8]))})" if about else ""
        why = "; ".join(unread) or f"put a txt or a json with one directly behind its picture{keys}"
        raise BrokenSample(cause, printable(f"sample {name!r} has no caption: {why}"))
    packed_here = isinstance(about.get("id"), str) and isinstance(about.get("domain"), str)
    return Record(
        files[pictures[0]],
        tuple(captions),
        questions,
        boxes,
        printable(about["id"]) if packed_here else name,
        printable(about["domain"]) if packed_here else "",
        tuple(printable(f"sample {name!r}: {one}") for one in unread),
    )


def _json_of(files: dict[str, bytes], unread: list[str]) -> dict:
    if not files.get("json", b"").strip():
        return {}
    try:
        about = parse_json(decode_text(files["json"], "its json"), "its json")
    except ValueError as error:
        unread.append(str(error))
        return {}
    if not isinstance(about, dict):
        unread.append("its json is no object")
        return {}
    return about


def _captions_of(files: dict[str, bytes], about: dict, unread: list[str]) -> list[str]:
    """The captions of the first place that has any: `captions` of the json, a text, `caption` or `text` of the json
    (LAION: `TEXT`). What another place has is named, unless it says the same."""
    keys = {wanted: [key for key in about if key.casefold() == wanted] for wanted in ("captions", "caption", "text")}
    places: list[tuple[str, Any]] = [(key, about[key]) for key in keys["captions"]]
    for ending in TEXT_ENDINGS:
        try:
            places.append((ending, decode_text(files[ending], f"its {ending}") if ending in files else None))
        except ValueError as error:
            unread.append(str(error))
    places += [(key, about[key]) for key in (*keys["caption"], *keys["text"])]
    captions: list[str] = []
    for place, value in places:
        found, problems = captions_in(value)
        unread += [f"a caption {problem}" for problem in problems if problem != "is empty"]
        if not captions:
            captions = found
        elif other := [one for one in found if one not in captions]:
            unread.append(f"its {place} is not used, because there is another caption: {other[0][:60]!r}")
    return captions


def _questions_of(about: dict, unread: list[str]) -> tuple[AskedQuestion, ...]:
    """The questions of a json: `questions`, or one `question` with its `answer`, or LLaVA's `conversations`."""
    questions = _questions_in(about.get("questions"), unread)
    if about.get("question") is not None:
        questions += _questions_in({key: about.get(key) for key in ("question", "answer", "answers")}, unread)
    if "conversations" in about:
        pairs, problems = turns_in(about["conversations"])
        unread += [f"its conversation {problem}" for problem in problems]
        questions += tuple(AskedQuestion(question, (answer,)) for question, answer in pairs)
    return questions


def _questions_in(value: Any, unread: list[str]) -> tuple[AskedQuestion, ...]:
    """Questions as `pack` writes them, with `question` and `answer`, or as texts without answers."""
    found = []
    for one in value if isinstance(value, list) else [] if value is None else [value]:
        asked = {"text": one} if isinstance(one, str) else one if isinstance(one, dict) else {}
        text, given = asked.get("text", asked.get("question")), asked.get("answers") or asked.get("answer")
        given = given if isinstance(given, list | tuple) else [] if given is None else [given]
        answers = [str(one) if is_number(one) else one for one in given]
        good, bad = texts_in(answers) if answers else ([], [])
        if not isinstance(text, str) or texts_in(text)[1] or bad:
            unread.append(f"a question has another form: {json.dumps(one)[:60]}")
            continue
        kind, number = (asked.get(name, "") for name in ("type", "id"))
        found.append(AskedQuestion(text, tuple(good), kind if isinstance(kind, str) else "", str(number)))
    return tuple(found)


def _boxes_in(value: Any, unread: list[str]) -> tuple[Box, ...]:
    """Boxes as `pack` writes them: a phrase, and four fractions."""
    found = []
    for one in value if isinstance(value, list) else [] if value is None else [value]:
        phrase, place = one if isinstance(one, list) and len(one) == 2 else (None, None)
        numbers = place if isinstance(place, list) and len(place) == 4 else [None]
        fractions = all(is_number(number) and 0 <= number <= 1 for number in numbers)
        if isinstance(phrase, str) and fractions and numbers[0] <= numbers[2] and numbers[1] <= numbers[3]:
            found.append((phrase, tuple(numbers)))
        else:
            unread.append(f"a box has another form: {json.dumps(one)[:60]}")
    return tuple(found)


def _split_name(name: str) -> tuple[str, str]:
    """`folder/0007.seg.png` -> (`folder/0007`, `seg.png`): webdataset's rule, up to the first dot of the file name."""
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    return str(path.with_name(stem)) if stem else "", ending.lower()


def samples_of(
    members: Iterable[tuple[str, Any]], leave_out: Callable[[str, str, str], None]
) -> Iterator[tuple[str, dict]]:
    """(name, content) of a shard's files -> (key, ending -> content) of each sample: consecutive files of one stem.

    A key that occurs again is told apart by `#2`. `leave_out` is called for a file that a sample has twice.
    """
    seen: dict[str, int] = {}

    def unique(key: str, files: dict) -> Iterator[tuple[str, dict]]:
        for one, own in _split_dotted(key, files):
            seen[one] = seen.get(one, 0) + 1
            yield (one if seen[one] == 1 else f"{one}#{seen[one]}"), own

    current, files = "", {}
    for name, content in members:
        key, ending = _split_name(name)
        if not key:  # a hidden file, such as macOS's ._0001.jpg
            continue
        if key != current:
            if files:
                yield from unique(current, files)
            current, files = key, {}
        if ending in files:
            leave_out(name, "file twice in a sample", f"{name!r} is in the shard twice in a row; the first one is used")
            continue
        files[ending] = content
    if files:
        yield from unique(current, files)


def _split_dotted(key: str, files: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Samples whose names have a dot of their own (`22.05.jpg`, `22.05.txt`, `22.06.jpg`, …): by the last dot, if every
    part then has an image and a text; else one sample, by webdataset's rule."""
    if any(ending in files for ending in IMAGE_ENDINGS):
        return [(key, files)]
    parts: dict[str, dict[str, Any]] = {}
    for ending, content in files.items():
        before, _, last = ending.rpartition(".")
        parts.setdefault(before, {})[last] = content
    whole = all(
        before and any(e in own for e in IMAGE_ENDINGS) and any(e in own for e in (*TEXT_ENDINGS, "json"))
        for before, own in parts.items()
    )
    return [(f"{key}.{before}", own) for before, own in parts.items()] if whole else [(key, files)]


# ------------------------------------------------------------------------------------------------------------ tar files


def _open_tar(file: Any, mode: str) -> tuple[tarfile.TarFile, type[tarfile.TarInfo]]:
    """An open tar file, and its class of headers, whose `last` is the last block that was read as a header."""

    class Header(tarfile.TarInfo):
        last = b""

        @classmethod
        def frombuf(cls, buf: bytes, encoding: str, errors: str) -> tarfile.TarInfo:
            Header.last = buf
            return super().frombuf(buf, encoding, errors)

    return tarfile.open(fileobj=file, mode=mode, tarinfo=Header), Header


def members_of(
    file: Any, mode: str, leave_out: Callable[[str, str, str], None]
) -> Iterator[tuple[tarfile.TarFile, Any]]:
    """(tar, member) of each regular file of a tar file. Raises tarfile.TarError if the file is not whole."""
    tar, header = _open_tar(file, mode)
    for member in tar:
        if member.isreg() and not member.issparse():
            yield tar, member
        elif not member.isdir():
            message = f"{member.name!r} is a link, or another special file, so it has no content of its own"
            leave_out(member.name, "link in a shard", message)
        tar.members = []  # of a stream of any length
    if len(header.last) < tarfile.BLOCKSIZE or any(header.last):
        raise tarfile.ReadError("it is cut off, or damaged: a header is not whole")
    zeros = 0
    while block := tar.fileobj.read(2**16):
        if any(block):
            raise tarfile.ReadError(
                "there are data behind its end: keep several tar files apart, or remove what is there"
            )
        zeros += len(block)
    if zeros < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it is cut off: the two blocks of zeros at its end are not there")


def _tar_remedy(path: Path) -> str:
    """What to do about a file that is no tar file: it may be an archive of another kind, with the ending .tar."""
    if not path.is_file():
        return "it is a folder, a pipe or a device, move it away"
    with path.open("rb") as file:
        start = file.read(64)
    found, remedy = next(((found, remedy) for mark, found, remedy in NO_TEXT if start.startswith(mark)), ("", ""))
    if "archive" in found:
        return f"it is {found}, unpack it to a .tar file"
    return f"it is {found}, {remedy}" if found else "copy it again"


# ------------------------------------------------------------------------------------------------------------ packing


def pack(
    source: ImageTextList,
    folder: str | os.PathLike,
    per_shard: int = 1000,
    say: Callable[[LeftOut], None] = lambda _: None,
) -> str:
    """Write `shard-000000.tar` … and `shards.json` into a new or empty folder; returns a report in one sentence.

    What cannot be used is left out; `say` is called with each, and the report counts them. Raises ValueError when the
    folder has shards already.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a new folder for the shards")
    if (folder / INDEX_FILE).exists() or (folder.exists() and shard_files(folder)):
        raise ValueError(f"{folder} holds shards already: choose another folder, or remove them")
    if per_shard < 1:
        raise ValueError(f"per_shard is {per_shard}; it must be at least 1 picture")
    folder.mkdir(parents=True, exist_ok=True)
    left_out, shards, samples = list(source.left_out), [], []

    def close() -> None:
        name = f"shard-{len(shards):06d}.tar"
        shards.append({"file": name, "examples": len(samples), **_write_tar(folder / name, samples)})
        samples.clear()

    for number in range(len(source)):
        record = None
        try:
            record = source.record(number)
            samples.append(_files_of(f"{number:08d}", record))
        except BrokenSample as broken:
            left_out.append(LeftOut((record and record.id) or str(number), broken.cause, str(broken)))
        else:
            left_out += [LeftOut(record.id, "unread part", sentence) for sentence in record.unread]
        if len(samples) == per_shard:
            close()
    if samples:
        close()
    for one in left_out:
        say(one)
    if not shards:
        raise ValueError(f"there is nothing to pack: {skip_report(0, count_causes(left_out))}")
    index = {"shards": shards, "skipped": dict(count_causes(left_out))}
    write_atomically(folder / INDEX_FILE, json.dumps(index, indent=1) + "\n")
    count = sum(shard["examples"] for shard in shards)
    return f"{left_out_report(count, left_out)}; {len(shards)} shards in {folder}"


def _files_of(key: str, record: Record) -> dict[str, bytes]:
    """The files of one sample, by name. Raises BrokenSample when its image cannot be read."""
    content = _content_of(record.file)
    open_image(content if isinstance(record.file, bytes | Image.Image) else record.file)  # the error names the file
    # the content determines the ending: a .jpg may be a PNG. MPO is a JPEG with several images, as phones write it
    format = Image.open(io.BytesIO(content)).format
    ending = {"JPEG": "jpg", "MPO": "jpg", "TIFF": "tif"}.get(format, format.lower())
    questions = [{"text": q.text, "answers": [q.answer], "type": q.type} for q in record.questions]
    for asked, question in zip(questions, record.questions, strict=True):
        if isinstance(question, AskedQuestion):
            asked |= asdict(question)
    about = {"captions": record.captions, "questions": questions, "boxes": record.boxes}
    about = {name: value for name, value in about.items() if value} | {"id": record.id, "domain": record.domain}
    files = {f"{key}.{ending}": content, f"{key}.json": json.dumps(about, ensure_ascii=False).encode()}
    if record.captions:
        files[f"{key}.txt"] = record.captions[0].encode()
    return files


def _content_of(file: Path | bytes | Image.Image) -> bytes:
    if isinstance(file, bytes):
        return file
    if isinstance(file, Image.Image):  # drawn, or decoded by another library
        stream = io.BytesIO()
        open_image(file).save(stream, "PNG")
        return stream.getvalue()
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise BrokenSample("missing file", f"there is no file {str(file)!r}") from None
    except OSError as error:
        raise BrokenSample("unreadable file", f"{str(file)!r} cannot be read ({error.strerror or error})") from None


def _write_tar(path: Path, samples: Sequence[dict[str, bytes]]) -> dict[str, Any]:
    """Write a tar file of all samples, atomically. Returns its size and checksum."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in sorted((name, content) for files in samples for name, content in files.items()):
                member = tarfile.TarInfo(name)  # time and owner stay 0: the same images give the same bytes
                member.size, member.mode = len(content), 0o644
                tar.addfile(member, io.BytesIO(content))
        flush(temporary)
        with temporary.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.replace(temporary, path)
    except OSError as error:  # a full disk: its error names no file
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
    return {"bytes": path.stat().st_size, "sha256": digest}


# -------------------------------------------------------------------------------------------------- shards on the disk


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder, in order: every entry that ends in .tar and is not hidden."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ".tar" and not path.name.startswith("."))


def _other_files(folder: Path) -> list[LeftOut]:
    """The files in a folder of shards, and below it, that may have pictures or captions and are not read."""
    left_out = []

    def leave_out(name: str, cause: str, message: str) -> None:
        left_out.append(LeftOut(printable(name), cause, printable(message)))

    def unreadable(error: OSError) -> None:
        leave_out(str(error.filename), "unreadable folder", f"{error.filename}: {error.strerror}")

    for file in walk_files(folder, unreadable):
        ending, name = file.suffix.lower(), file.relative_to(folder).as_posix()
        if ending == ".tar" and file.parent == folder:
            continue
        if ending == ".tar":
            ways = "give its folder, or list both folders in a sources.toml"
            leave_out(name, "file that is not read", f"{name!r} is in a folder below that of the shards: {ways}")
        elif ending in MAY_HAVE_EXAMPLES and file.name not in (INDEX_FILE, *OWN_FILES):
            because = "the pictures and captions are those of the shards"
            leave_out(name, "file that is not read", f"{name!r} is not read, because {because}")
    return left_out


class ShardFolder:
    """Shards on disk as a source by index: a folder of .tar files, or a list of them.

    With `shards.json` beside them a shard is opened when its first sample is read; without it the indices of all shards
    are read first. Raises ValueError when a shard is missing, damaged, or truncated by an interrupted copy.
    """

    def __init__(self, folder: str | os.PathLike | Sequence[str | os.PathLike]) -> None:
        listed = [folder] if isinstance(folder, str | os.PathLike) else list(folder)
        if not listed:
            raise ValueError("the list of shards is empty: give at least one .tar file, or a folder of them")
        self.name = str(listed[0])
        self.left_out: list[LeftOut] = []
        self._endings: Counter[str] = Counter()
        self._indices: dict[int, list[tuple[str, dict[str, tuple[int, int]]]]] = {}
        whole = len(listed) == 1 and Path(listed[0]).is_dir()
        index_file = Path(listed[0]) / INDEX_FILE
        here = shard_files(Path(listed[0])) if whole else [Path(path) for path in listed]
        names = sorted(os.listdir(listed[0])) if whole else []
        if zipped := [name for name in names if name.lower().endswith(COMPRESSED)]:
            raise ValueError(f"{listed[0]} has {zipped[0]}: shards are read uncompressed, unpack it to a .tar file")
        if parts := [name for name in names if ".tar." in name.lower()]:
            raise ValueError(f"{listed[0]} has {parts[0]}, which is no shard: finish copying it, or move it away")
        if whole and index_file.is_file():
            shards = read_index(index_file)
            self.paths = [index_file.parent / shard["file"] for shard in shards]
            counts = [shard["examples"] for shard in shards]
            for path, shard in zip(self.paths, shards, strict=True):
                size = path.stat().st_size if path.is_file() else None
                if size != shard["bytes"]:
                    what = "is missing" if size is None else f"has {size} bytes instead of {shard['bytes']}"
                    raise ValueError(f"{path} {what}: copy it again")
            if unlisted := sorted(set(here) - set(self.paths)):
                raise ValueError(
                    f"{unlisted[0]} is not listed in {index_file}: move it, or remove {INDEX_FILE} to read all shards"
                )
        else:
            self.paths = self._without_repeats(here)
            counts = [len(self._index_of(shard)) for shard in range(len(self.paths))]
        if whole:
            self.left_out += _other_files(index_file.parent)
        if not sum(counts):
            raise ValueError(f"{self.name} holds no samples: there is no .tar file with pictures in it")
        self._counts = counts
        self._places = [(shard, row) for shard, count in enumerate(counts) for row in range(count)]
        stems = [path.stem for path in self.paths]
        self._names = stems if len(set(stems)) == len(stems) else [str(path.with_suffix("")) for path in self.paths]

    @property
    def skipped(self):
        """cause -> number of files left out"""
        return count_causes(self.left_out)

    def _without_repeats(self, paths: Sequence[Path]) -> list[Path]:
        """The shards without those that are another one under a second name; these are named."""
        first: dict[Any, Path] = {}
        for path in paths:
            same = first.setdefault(identity(path) or path, path)
            if same is not path:
                message = f"{path} is the same file as {same}, which is read once"
                self.left_out.append(LeftOut(printable(str(path)), "shard twice", printable(message)))
        return list(first.values())

    def _index_of(self, shard: int) -> list[tuple[str, dict[str, tuple[int, int]]]]:
        """(key, ending -> (offset, size)) of each sample of a shard, in the order of the shard."""
        if shard in self._indices:
            return self._indices[shard]
        path, left_out = self.paths[shard], []

        def leave_out(name: str, cause: str, message: str) -> None:
            left_out.append(LeftOut(printable(f"{path}: {name}"), cause, printable(f"{path}: {message}")))

        try:
            if path.exists() and not path.is_file():
                raise tarfile.ReadError("it is no file")
            with path.open("rb") as file:
                members = members_of(file, "r:", leave_out)
                places = ((member.name, (member.offset_data, member.size)) for _, member in members)
                table = list(samples_of(places, leave_out))
        except FileNotFoundError:
            raise ValueError(f"there is no shard {path}") from None
        except (tarfile.TarError, ValueError, EOFError) as error:  # ValueError: a damaged field of a header
            raise ValueError(f"{path} is not a whole, uncompressed tar file ({error}): {_tar_remedy(path)}") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror or error})") from None
        self.left_out += left_out
        self._indices[shard] = table
        self._endings.update(ending for _, files in table for ending in files if ending not in READ_ENDINGS)
        return table

    @property
    def notes(self) -> list[str]:
        """What is worth knowing of the shards that were opened, and no fault: files of samples that are not read."""
        if not self._endings:
            return []
        counted = self._endings.most_common(20)
        listed = ", ".join(f"{number} {ending or 'without an ending'}" for ending, number in counted)
        return [f"{self.name}: files of samples that are not read: {listed}"]

    def __len__(self) -> int:
        return len(self._places)

    def record(self, index: int) -> Record:
        """Sample `index`: its files are read, its image is not decoded yet. Raises BrokenSample."""
        shard, row = self._places[index]
        table, path = self._index_of(shard), self.paths[shard]
        if len(table) != self._counts[shard]:
            expected = f"{self._counts[shard]}, as {INDEX_FILE} says"
            raise ValueError(f"{path} has {len(table)} samples instead of {expected}: copy both again")
        key, places = table[row]
        with path.open("rb") as file:
            files = {}
            for ending, (offset, size) in places.items():
                file.seek(offset)
                files[ending] = file.read(size)
                if len(files[ending]) != size:
                    raise ValueError(f"{path} has become shorter since it was opened: copy it again")
        return record_of(key, files, self._names[shard])

    def __getitem__(self, index: int) -> Example:
        return self.record(index).open()

    def check(self) -> None:
        """Compare every shard with its checksum in `shards.json`, if there is one. Raises ValueError if one differs."""
        for folder in dict.fromkeys(path.parent for path in self.paths):
            if not (folder / INDEX_FILE).is_file():
                continue
            for shard in read_index(folder / INDEX_FILE):
                path = folder / shard["file"]
                if path in self.paths:
                    with path.open("rb") as file:
                        if hashlib.file_digest(file, "sha256").hexdigest() != shard["sha256"]:
                            raise ValueError(f"{path} is not what was packed: copy it again")


def read_index(file: Path) -> list[dict[str, Any]]:
    """The shards in a `shards.json`. Raises ValueError for a damaged one, or one of another tool."""
    content = parse_json(read_text(file), str(file))
    shards = content.get("shards") if isinstance(content, dict) else None
    kinds = {"file": str, "examples": int, "bytes": int, "sha256": str}
    names: set[str] = set()
    for shard in shards if isinstance(shards, list) else [None]:
        fits = isinstance(shard, dict) and all(type(shard.get(name)) is kind for name, kind in kinds.items())
        fits = fits and PurePosixPath(shard["file"]).name == shard["file"] not in names and shard["examples"] >= 0
        if not fits:
            raise ValueError(
                f"{file} is not an index that `blip2-lab data shards` wrote: if it is another tool's, or damaged, "
                "move it away, and the shards are read without it"
            )
        names.add(shard["file"])
    return shards
