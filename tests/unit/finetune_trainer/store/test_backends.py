"""What every store promises, on a local directory and on a real MinIO."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import minio.time as minio_time
import pytest

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.store.base import Store
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.store.errors import ObjectNotFoundError, StorageAuthError, StorageUnavailableError
from finetune_trainer.store.local import LocalStore
from finetune_trainer.store.probe import MEASURED_BYTES, PROBE_PREFIX, measure_upload, probe_store
from finetune_trainer.store.s3 import S3Store
from finetune_trainer.store.s3_client import S3Connection, parse_s3_uri
from finetune_trainer.store.segments import SEGMENT_BYTES
from tests.support.minio import MinioServer
from tests.support.ports import free_port

MakeFile = Callable[[str, bytes], Path]


def test_put_get_list_delete(store: Store) -> None:
    store.put("a/x.json", b"1")
    store.put("a/y/z.json", b"22")
    store.put("b.json", b"333")
    assert [(info.key, info.size) for info in store.list("a/")] == [("a/x.json", 1), ("a/y/z.json", 2)]
    assert [info.key for info in store.list()] == ["a/x.json", "a/y/z.json", "b.json"]
    store.put("a/x.json", b"other")
    assert store.get("a/x.json") == b"other"
    assert store.get_range("a/x.json", 1, 3) == b"the"
    store.delete(["a/x.json", "a/y/z.json", "a/absent"])
    assert [info.key for info in store.list()] == ["b.json"]


def test_list_matches_a_prefix_inside_a_name(store: Store) -> None:
    store.put("attempts/1.json", b"1")
    store.put("attempts/10.json", b"1")
    store.put("attempts-other", b"1")
    assert [info.key for info in store.list("attempts/1")] == ["attempts/1.json", "attempts/10.json"]


def test_missing_object_is_named(store: Store) -> None:
    with pytest.raises(ObjectNotFoundError, match=r"no/such\.json"):
        store.get("no/such.json")


def test_create_succeeds_once_among_many(store: Store) -> None:
    """Design §5: an attempt is claimed by create-if-absent; exactly one of many concurrent claims wins."""
    with ThreadPoolExecutor(32) as pool:
        made = list(pool.map(lambda number: store.create("attempts/1.json", str(number).encode()), range(32)))
    assert made.count(True) == 1
    assert store.get("attempts/1.json") == str(made.index(True)).encode()
    assert not store.create("attempts/1.json", b"late")


def test_lists_writes_and_deletions_do_not_disturb_each_other(store: Store) -> None:
    """Two pods of a job share a store: one lists attempts while another removes an old checkpoint and a third adds one."""
    store.put("a1/kept.json", b"1")

    def come_and_go(name: str) -> None:
        for number in range(150):
            key = f"a1/checkpoint-5/{name}/{number % 3}"
            store.put(key, b"x")
            assert store.create(f"{key}-claimed", b"x")
            store.delete([key, f"{key}-claimed"])

    def look() -> None:
        for _ in range(100):
            assert "a1/kept.json" in [info.key for info in store.list("a1/")]

    with ThreadPoolExecutor(5) as pool:
        tasks = [*(pool.submit(come_and_go, name) for name in ("shared", "own", "else")), pool.submit(look), pool.submit(look)]
        for task in tasks:
            task.result()
    assert [info.key for info in store.list()] == ["a1/kept.json"]


def test_files_survive_the_way_there_and_back(store: Store, make_file: MakeFile, tmp_path: Path) -> None:
    content = bytes(range(256)) * (SEGMENT_BYTES // 128) + b"tail"
    store.upload("a1/checkpoint-5/big.bin", make_file("big.bin", content))
    store.upload("a1/checkpoint-5/empty", make_file("empty", b""))
    assert store.download("a1/checkpoint-5/big.bin", tmp_path / "out/big.bin") == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "out/big.bin").read_bytes() == content
    assert store.download("a1/checkpoint-5/empty", tmp_path / "out/empty") == hashlib.sha256(b"").hexdigest()


def test_probe_finds_conditional_writes_and_cleans_up(store: Store) -> None:
    assert probe_store(store).conditional_writes
    assert list(store.list(PROBE_PREFIX)) == []


def test_the_speed_of_an_upload_is_measured_without_a_trace(store: Store, tmp_path: Path) -> None:
    """OP-11: bytes per second, of a file as checkpoints have them."""
    directory = tmp_path / "probing"
    directory.mkdir()
    assert MEASURED_BYTES / 60 < measure_upload(store, directory) < 1e12
    assert (list(store.list(PROBE_PREFIX)), list(directory.iterdir())) == ([], [])


def test_a_service_without_conditional_writes_is_noticed(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Design §5: a start-up probe decides whether the store honours If-None-Match."""
    pool = s3_store.connection.session().http
    send = pool.request

    def drop_header(method: str, url: str, **options: object) -> object:
        options.pop("headers", None)
        return send(method, url, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(pool, "request", drop_header)
    assert not probe_store(s3_store).conditional_writes
    assert s3_store.create("attempts/1.json", b"one")
    assert not s3_store.create("attempts/1.json", b"two")


def test_an_answer_lost_on_the_way_does_not_lose_a_claim(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = s3_store.connection.session().http
    send = pool.request
    lost = iter([True])

    def lose_first_answer(method: str, url: str, **options: object) -> object:
        answer = send(method, url, **options)  # type: ignore[arg-type]
        if next(lost, False):
            raise ConnectionResetError("connection reset after the request")
        return answer

    monkeypatch.setattr(pool, "request", lose_first_answer)
    assert s3_store.create("attempts/7.json", b"mine")


def test_missing_secret_and_missing_key_are_named(tmp_path: Path) -> None:
    """Issue 3, bad input: missing secret or key ends in a clear error."""
    location = parse_s3_uri("s3://bucket/x", endpoint="http://127.0.0.1:1")
    absent = S3Store(S3Connection(location, SecretFiles(tmp_path / "absent", "finetune-storage")))
    with pytest.raises(StorageAuthError, match="Secret finetune-storage does not exist or is empty; it needs the key AWS_ACCESS_KEY_ID"):
        absent.get("x")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/AWS_ACCESS_KEY_ID").write_text("me")
    half = S3Store(S3Connection(location, SecretFiles(tmp_path / "half", "half-secret")))
    with pytest.raises(StorageAuthError, match="Secret half-secret lacks the key AWS_SECRET_ACCESS_KEY"):
        half.get("x")


def test_wrong_keys_name_bucket_and_secret(minio: MinioServer, bucket: str, tmp_path: Path) -> None:
    secret = SecretFiles(minio.write_secret(tmp_path / "wrong", secret_key="not-the-key"), "finetune-storage")
    store = S3Store(S3Connection(parse_s3_uri(f"s3://{bucket}/x"), secret), patience=5)
    with pytest.raises(StorageAuthError, match=f"SignatureDoesNotMatch.*Secret finetune-storage.*bucket {bucket}"):
        store.get("x")


def test_a_wrong_clock_is_said_to_be_one(minio: MinioServer, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 refuses requests of another time as it refuses wrong keys; nobody should look for the fault in the Secret."""
    real = minio_time.utcnow
    monkeypatch.setattr(minio_time, "utcnow", lambda: real() + timedelta(hours=1))
    secret = SecretFiles(minio.write_secret(tmp_path / "secret"), "finetune-storage")
    store = S3Store(S3Connection(parse_s3_uri(f"s3://{bucket}/x"), secret), patience=5)
    with pytest.raises(StorageAuthError, match=r"RequestTimeTooSkewed.*clock") as raised:
        store.get("x")
    assert "Secret" not in str(raised.value)


def test_rotated_keys_are_read_again(minio: MinioServer, bucket: str, tmp_path: Path) -> None:
    """Design §4: store credentials are files, re-read on 403."""
    secret = SecretFiles(minio.write_secret(tmp_path / "secret", secret_key="old-and-revoked"), "finetune-storage")
    connection = S3Connection(parse_s3_uri(f"s3://{bucket}/x"), secret)
    connection.session()
    minio.write_secret(tmp_path / "secret")
    S3Store(connection, patience=5).put("k", b"v")


def test_missing_bucket_is_named(minio: MinioServer, tmp_path: Path) -> None:
    secret = SecretFiles(minio.write_secret(tmp_path / "secret"), "finetune-storage")
    store = S3Store(S3Connection(parse_s3_uri("s3://no-such-bucket/x"), secret), patience=5)
    with pytest.raises(TrainerError, match="Bucket no-such-bucket does not exist") as caught:
        store.put("x", b"")
    assert caught.value.failure_class == FailureClass.CONFIGURATION


def test_nobody_answers(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for key, value in (("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")):
        (tmp_path / "s" / key).write_text(value)
    store = S3Store(S3Connection(parse_s3_uri("s3://bucket/x"), SecretFiles(tmp_path / "s", "n")), patience=0.5)
    with pytest.raises(StorageUnavailableError, match="no success within"):
        store.get("x")


def test_local_store_without_permission(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainerError):
        LocalStore(tmp_path / "file", patience=0.5).put("x", b"")
