"""Images of rows: found wherever a row says they are, checked, and kept once whatever the number of rows that show them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa  # type: ignore[import-untyped]
from PIL import Image, ImageOps, UnidentifiedImageError

from finetune_api.contract.run_config import RunConfig
from finetune_trainer.prepare.archive import MAX_MEMBER
from finetune_trainer.prepare.fetching import fetch_image
from finetune_trainer.prepare.formats.fields import show
from finetune_trainer.prepare.rows import data_error
from finetune_trainer.prepare.table import TableWriter, open_table, save

IMAGE_SCHEMA: Final = pa.schema([("content", pa.large_binary())])
"""One row per image: the file's bytes, scaled down where the job asks for it."""
MAX_PIXELS: Final = 2**26
"""Larger images are refused: decoded they would take 200 MB."""
SOURCES: Final = ("image", "bytes", "url", "image_url", "base64", "data", "path")
"""Keys of an object that says where an image is, in the order they are looked for."""


class Folder(Protocol):
    """Where the images that rows name lie."""

    def read(self, where: str, reference: str) -> bytes:
        """Bytes of a file. ``where`` names row and field. Raises :class:`TrainerError` (DataError) when there is none."""


class Directory:
    """Images beside a data file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()

    def read(self, where: str, reference: str) -> bytes:
        """Read a file below the directory."""
        path = (self._directory / reference).resolve()
        if not path.is_relative_to(self._directory):
            raise data_error(f"{where}: the path {reference!r} leads outside of the data's directory")
        if not path.is_file():
            raise data_error(
                f"{where}: there is no file {reference!r} beside the rows; from buckets and https:// only data files are fetched: pack "
                "images and rows into a ZIP (dataset.format: vlm-zip)"
            )
        if path.stat().st_size > MAX_MEMBER:
            raise data_error(f"{where}: {reference} has {path.stat().st_size} bytes; images of up to {MAX_MEMBER} are read")
        return path.read_bytes()


class Images(Protocol):
    """What becomes of the images of rows."""

    def take(self, where: str, reference: object, folder: Folder) -> int:
        """Look at an image; returns the number it is known by. Raises :class:`TrainerError` (DataError) for one that cannot be used."""


class ImageCheck:
    """A look at each image without keeping it, for preflight: it is there, and its beginning is that of an image."""

    def __init__(self, *, offline: bool) -> None:
        self._offline = offline

    def take(self, where: str, reference: object, folder: Folder) -> int:
        """Find the image and read its header; what a URL holds is for the preparation to see."""
        place = location(where, reference)
        if isinstance(place, str) and is_url(place):
            fetch_image(where, place, offline=self._offline, only_check=True)
        else:
            with _opened(where, load(where, place, folder, offline=self._offline)):
                pass
        return 0


class ImageStore:
    """Images as they are trained on, each content once, and the decoded ones of the rows under way."""

    def __init__(self, path: Path | None, *, max_pixels: int | None, offline: bool) -> None:
        """``path`` gets an Arrow stream of :data:`IMAGE_SCHEMA`; None keeps nothing."""
        self._path = path
        self._writer = TableWriter(path, IMAGE_SCHEMA) if path is not None else None
        self._max_pixels, self._offline = max_pixels, offline
        self._numbers: dict[str, int] = {}
        self._decoded: dict[int, Image.Image] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def take(self, where: str, reference: object, folder: Folder) -> int:
        """Keep an image whole; returns its place in the table."""
        content = load(where, location(where, reference), folder, offline=self._offline)
        digest = hashlib.sha256(content).hexdigest()
        number = self._numbers.get(digest)
        if number is not None and number in self._decoded:
            return number
        image = decode(content, where)
        scaled = scale_down(image, self._max_pixels)
        if number is None:
            number = self._numbers[digest] = len(self._numbers)
            if self._writer is not None:
                self._writer.write(content=[content if scaled is image else _png(scaled)])
        self._decoded[number] = scaled
        return number

    def decoded(self, number: int) -> Image.Image:
        """An image taken since the last :meth:`release`."""
        return self._decoded[number]

    def release(self) -> None:
        """Forget the decoded images: their rows are done."""
        self._decoded.clear()

    def save(self, directory: Path) -> None:
        """Finish the file and write the table of images, where there are any."""
        assert self._path is not None, "only a store with a path keeps images"
        assert self._writer is not None, "likewise"
        self._writer.close()
        if self._numbers:
            save(open_table(self._path), directory)


def open_images(config: RunConfig, path: Path | None = None) -> ImageStore:
    """Open a store as a job asks for it."""
    return ImageStore(path, max_pixels=config.spec.dataset.image_max_pixels, offline=config.offline)


def location(where: str, reference: object) -> str | bytes:
    """Text or bytes that say what and where an image is, out of the ways people write it."""
    found = reference
    for _ in range(3):  # {"image_url": {"url": ...}} and {"source": {"data": ...}} are objects in objects
        if not isinstance(found, Mapping):
            break
        given: Mapping[str, object] = found.get("source") if isinstance(found.get("source"), Mapping) else found  # type: ignore[assignment]
        key = next((key for key in SOURCES if given.get(key)), None)
        if key is None:
            break
        found = given[key]
        if key in ("base64", "data") and isinstance(found, str) and not found.startswith("data:"):
            return _base64(where, found)
    if isinstance(found, str | bytes) and found:
        return found
    raise data_error(f"{where} must say where the image is (a path, an https:// URL or a data URI), found {show(reference)}")


def load(where: str, place: str | bytes, folder: Folder, *, offline: bool) -> bytes:
    """Bytes of an image by path, URL or data URI, or as they are."""
    if isinstance(place, bytes):
        return place
    if place.startswith("data:"):
        head, comma, content = place.partition(",")
        if not comma or not head.endswith(";base64"):
            raise data_error(f"{where} must be a data URI like data:image/png;base64,..., found {show(place)}")
        return _base64(where, content)
    if is_url(place):
        return fetch_image(where, place, offline=offline)
    return folder.read(where, place)


def is_url(place: str) -> bool:
    """Whether a text is an address, not a path."""
    return "://" in place[:16]


def decode(content: bytes, where: str = "") -> Image.Image:
    """Decode an image to RGB, turned upright. Raises :class:`TrainerError` (DataError) that names row and field."""
    with _opened(where, content) as image:
        try:
            image.load()
            return ImageOps.exif_transpose(image).convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            raise data_error(f"{where}: the image cannot be read ({error})") from error


def scale_down(image: Image.Image, max_pixels: int | None) -> Image.Image:
    """Shrink an image to at most some pixels, its proportions kept; a small one stays the very object."""
    width, height = image.size
    if max_pixels is None or width * height <= max_pixels:
        return image
    factor = math.sqrt(max_pixels / (width * height))
    return image.resize((max(1, int(width * factor)), max(1, int(height * factor))), Image.Resampling.LANCZOS)


def _opened(where: str, content: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # judged below, by a bound of our own
            image = Image.open(io.BytesIO(content))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise data_error(f"{where}: not an image that can be read ({error})") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise data_error(f"{where}: the image has {width} x {height} pixels; up to {MAX_PIXELS} are read")
    return image


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def _base64(where: str, content: str) -> bytes:
    try:
        return base64.b64decode("".join(content.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise data_error(f"{where}: not valid base64 ({error})") from error
