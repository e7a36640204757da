"""Sources other than the hub: mounts, buckets, web servers."""

from __future__ import annotations

import http.server
import io
import ssl
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.contract.env import ENV_CA_BUNDLE
from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.sources import https as https_module
from finetune_trainer.sources.context import Role, Source, SourceContext
from finetune_trainer.sources.https import fetch_https
from finetune_trainer.sources.remote_model import check_remote_model
from finetune_trainer.sources.resolve import Split, fetch_data, fetch_file, fetch_model
from finetune_trainer.sources.sample import sample_data
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.store.s3_client import S3Connection, parse_s3_uri
from finetune_trainer.surroundings import trust_ca_bundle
from tests.support.certificates import make_certificate
from tests.support.minio import MinioServer
from tests.support.models import model_files

TRAIN = Split("train", None)
NO_SECRET = SecretFiles(Path("absent"), "none")


def source(uri: str, role: Role = "dataset.uri", secret: SecretFiles = NO_SECRET) -> Source:
    return Source(uri, role, secret)


def write(directory: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.fixture
def secret(minio: MinioServer, tmp_path: Path) -> SecretFiles:
    """Credentials of the MinIO."""
    return SecretFiles(minio.write_secret(tmp_path / "data-secret"), "data-secret")


@pytest.fixture(params=["s3", "gs"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Both are served by the S3 protocol."""
    found: str = request.param
    return found


ROWS = {name: name.encode() for name in ("train.jsonl", "train-2.jsonl", "test.jsonl", "more.jsonl")}


def fetched(context: SourceContext, split: str) -> list[str]:
    """Names of the files of a claim's directory that are used."""
    return [path.name for path in fetch_data(source("pvc://claim/rows"), context, Split(split, None)).files]


def test_files_named_by_their_split_are_told_apart(context: SourceContext) -> None:
    """D-16: the rows to test with are not trained; as in a dataset of the hub."""
    write(context.pvc_dir / "claim", {f"rows/{name}": content for name, content in ROWS.items()})
    assert fetched(context, "train") == ["train-2.jsonl", "train.jsonl"]
    assert fetched(context, "test") == ["test.jsonl"]
    with pytest.raises(TrainerError, match=r"has no split validation; files: more\.jsonl, test\.jsonl"):
        fetched(context, "validation")


def test_a_directory_of_one_split_is_read_whole(context: SourceContext) -> None:
    """Evaluation data may well lie in files called test, and the split is train by default."""
    write(context.pvc_dir / "claim", {"rows/test.jsonl": b"a", "rows/more.jsonl": b"b"})
    assert fetched(context, "train") == ["more.jsonl", "test.jsonl"]


def test_objects_named_by_their_split_are_told_apart(context: SourceContext, minio: MinioServer, bucket: str, secret: SecretFiles) -> None:
    """D-16, also where a sample is looked at."""
    put(minio, bucket, {f"d/{name}": content for name, content in ROWS.items()})
    test = Split("test", None)
    assert [path.name for path in fetch_data(source(f"s3://{bucket}/d", secret=secret), context, test).files] == ["test.jsonl"]
    sample = sample_data(source(f"s3://{bucket}/d", secret=secret), context, test, context.cache_dir / "sample")
    assert [path.name for path in sample.files] == ["test.jsonl"]


@pytest.mark.parametrize(("scheme", "endpoint"), [("s3", "https://s3.amazonaws.com"), ("gs", "https://storage.googleapis.com")])
def test_default_endpoints(tmp_path: Path, scheme: str, endpoint: str) -> None:
    """A Secret without AWS_ENDPOINT_URL leads to the provider that the scheme names."""
    write(tmp_path, {"AWS_ACCESS_KEY_ID": b"key", "AWS_SECRET_ACCESS_KEY": b"secret"})
    connection = S3Connection(parse_s3_uri(f"{scheme}://bucket/rows"), SecretFiles(tmp_path, "data-secret"))
    assert connection.session().endpoint == endpoint
    (tmp_path / "AWS_ENDPOINT_URL").write_text("http://store:9000")
    assert connection.refresh()
    assert connection.session().endpoint == "http://store:9000"


def put(minio: MinioServer, bucket: str, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        minio.client().put_object(bucket, name, io.BytesIO(content), len(content))


def test_pvc_is_read_in_place(context: SourceContext) -> None:
    write(context.pvc_dir / "models/tiny", model_files())
    model = fetch_model(source("pvc://models/tiny", "model.uri"), context, needs_tokenizer=True)
    assert model.directory == context.pvc_dir / "models/tiny"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("pvc://models/huge", "no such file or directory on claim models; models holds tiny"),
        ("pvc://absent/x", "claim absent is not mounted"),
        ("pvc://models/../../etc", "must not contain"),
        ("configmap://data/other.jsonl", r"ConfigMap data has no key other\.jsonl; it has train\.jsonl"),
        ("configmap://absent/x", "ConfigMap absent does not exist"),
    ],
)
def test_missing_mounts_are_named(context: SourceContext, uri: str, message: str) -> None:
    write(context.pvc_dir, {"models/tiny/config.json": b"{}"})
    write(context.configmap_dir, {"data/train.jsonl": b"{}"})
    with pytest.raises(TrainerError, match=message) as caught:
        fetch_data(source(uri), context, TRAIN)
    assert caught.value.failure_class == FailureClass.DATA


def test_digest_is_of_contents_never_of_path_or_time(context: SourceContext, tmp_path: Path) -> None:
    """Trials T14: a new mtime must not prepare the rows again."""
    write(context.configmap_dir, {"one/a.jsonl": b'{"text": "x"}\n'})
    write(context.pvc_dir, {"two/deep/b.jsonl": b'{"text": "x"}\n'})
    first = fetch_data(source("configmap://one/a.jsonl"), context, TRAIN).digest
    (context.configmap_dir / "one/a.jsonl").touch()
    assert fetch_data(source("configmap://one/a.jsonl"), context, TRAIN).digest == first
    assert fetch_data(source("pvc://two/deep"), context, TRAIN).digest == first
    write(context.pvc_dir, {"two/deep/b.jsonl": b'{"text": "y"}\n'})
    assert fetch_data(source("pvc://two/deep"), context, TRAIN).digest != first


def test_directory_of_data_in_name_order(context: SourceContext) -> None:
    write(context.pvc_dir / "data", {"b.jsonl": b"2", "a.jsonl": b"1", "README.md": b"", "sub/c.jsonl": b"3"})
    files = fetch_data(source("pvc://data/"), context, TRAIN).files
    assert [path.read_bytes() for path in files] == [b"1", b"2", b"3"]
    write(context.pvc_dir / "data", {"d.csv": b""})
    with pytest.raises(TrainerError, match=r"several kinds \(\.csv, \.jsonl\)"):
        fetch_data(source("pvc://data/"), context, TRAIN)


def test_s3_object_and_prefix(minio: MinioServer, bucket: str, scheme: str, secret: SecretFiles, context: SourceContext) -> None:
    put(minio, bucket, {"data/train.jsonl": b"rows", "data/train.jsonl.bak": b"no", "data2/x.jsonl": b"no"})
    single = fetch_data(source(f"{scheme}://{bucket}/data/train.jsonl", secret=secret), context, TRAIN)
    assert [path.read_bytes() for path in single.files] == [b"rows"]
    prefix = fetch_data(source(f"{scheme}://{bucket}/data", secret=secret), context, TRAIN)
    assert [path.name for path in prefix.files] == ["train.jsonl"]
    with pytest.raises(TrainerError, match=f"nothing there in bucket {bucket}"):
        fetch_data(source(f"{scheme}://{bucket}/absent", secret=secret), context, TRAIN)


def test_s3_model_is_cached_by_content(minio: MinioServer, bucket: str, scheme: str, secret: SecretFiles, context: SourceContext) -> None:
    put(minio, bucket, {f"m/{name}": content for name, content in {**model_files(), "model.gguf": b"GGUF"}.items()})
    model = fetch_model(source(f"{scheme}://{bucket}/m", "model.uri", secret), context, needs_tokenizer=True)
    assert not (model.directory / "model.gguf").exists()
    again = fetch_model(source(f"{scheme}://{bucket}/m/", "model.uri", secret), context, needs_tokenizer=True)
    assert again == model
    put(minio, bucket, {"m/config.json": b'{"model_type": "qwen2"}'})
    changed = fetch_model(source(f"{scheme}://{bucket}/m", "model.uri", secret), context, needs_tokenizer=True)
    assert changed.directory != model.directory
    assert changed.revision != model.revision


def test_gguf_is_refused(minio: MinioServer, bucket: str, scheme: str, secret: SecretFiles, context: SourceContext) -> None:
    """C-11, AC-04: inference-only, not trainable."""
    put(minio, bucket, {"m/model.gguf": b"GGUF"})
    for uri in (f"{scheme}://{bucket}/m/model.gguf", f"{scheme}://{bucket}/m"):
        with pytest.raises(TrainerError, match="GGUF") as caught:
            fetch_model(source(uri, "model.uri", secret), context, needs_tokenizer=True)
        assert caught.value.failure_class == FailureClass.MODEL
        with pytest.raises(TrainerError, match="GGUF"):
            check_remote_model(source(uri, "model.uri", secret), context, needs_tokenizer=True)


def test_preflight_of_an_s3_model_reads_headers_only(
    minio: MinioServer, bucket: str, scheme: str, secret: SecretFiles, context: SourceContext
) -> None:
    put(minio, bucket, {f"m/{name}": content for name, content in model_files().items()})
    assert check_remote_model(source(f"{scheme}://{bucket}/m", "model.uri", secret), context, needs_tokenizer=True) == {}
    assert not context.cache_dir.exists()


def test_large_data_is_sampled_at_both_ends(
    minio: MinioServer,
    bucket: str,
    secret: SecretFiles,
    context: SourceContext,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = b"".join(b'{"text": "row %d"}\n' % number for number in range(1000))
    put(minio, bucket, {"d/train.jsonl": rows})
    whole = sample_data(source(f"s3://{bucket}/d/train.jsonl", secret=secret), context, TRAIN, tmp_path / "sample")
    assert whole.is_whole
    for name, size in (("WHOLE_BYTES", 1000), ("HEAD_BYTES", 500), ("TAIL_BYTES", 300)):
        monkeypatch.setattr(f"finetune_trainer.sources.sample.{name}", size)
    sample = sample_data(source(f"s3://{bucket}/d/train.jsonl", secret=secret), context, TRAIN, tmp_path / "sample")
    assert not sample.is_whole
    lines = sample.files[0].read_bytes().splitlines()
    assert lines[0] == b'{"text": "row 0"}'
    assert lines[-1] == b'{"text": "row 999"}'
    assert all(line.startswith(b'{"text": "row ') and line.endswith(b'"}') for line in lines)


class Files(http.server.BaseHTTPRequestHandler):
    """A web server with a few files, some behind a token."""

    content: dict[str, bytes] = {}
    etags = True
    gets: list[str] = []

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self.gets.append(self.path)
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        body = self.content.get(self.path)
        status = 404 if body is None else 200
        if self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.path.startswith("/private") and self.headers.get("Authorization") != "Bearer good":
            status = 401
        self.send_response(status)
        if status == 200 and self.etags:
            self.send_header("ETag", f'"{hash(body)}"')
        self.send_header("Content-Length", str(len(body or b"") if status == 200 else 0))
        self.end_headers()
        if with_body and status == 200:
            self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[str]:
    """URL of the web server (http: the scheme is checked by the CRD, not here)."""
    Files.content, Files.etags, Files.gets = {}, True, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_https_file_is_cached_by_its_entity_tag(web: str, context: SourceContext) -> None:
    Files.content = {"/train.jsonl": b"rows"}
    first = fetch_https(source(f"{web}/train.jsonl"), context)
    assert (first / "train.jsonl").read_bytes() == b"rows"
    assert fetch_https(source(f"{web}/train.jsonl"), context) == first
    assert Files.gets == ["/train.jsonl"]


def test_https_without_entity_tags_is_cached_by_content(web: str, context: SourceContext) -> None:
    Files.content, Files.etags = {"/train.jsonl": b"rows"}, False
    first = fetch_https(source(f"{web}/train.jsonl"), context)
    Files.content = {"/train.jsonl": b"other"}
    second = fetch_https(source(f"{web}/train.jsonl"), context)
    assert first != second
    assert sorted(path.name[:1] for path in (context.cache_dir / "objects").iterdir() if path.name.startswith(".")) == []


def test_archives_are_unpacked_without_their_top_folder(web: str, context: SourceContext) -> None:
    Files.content = {"/model.tar.gz": tar({f"tiny/{name}": content for name, content in model_files().items()})}
    directory = fetch_https(source(f"{web}/model.tar.gz", "model.uri"), context)
    assert {path.name for path in directory.iterdir()} == set(model_files())


def test_archives_cannot_write_elsewhere(web: str, context: SourceContext, tmp_path: Path) -> None:
    Files.content = {"/up.tar.gz": tar({"../../evil": b"x"}), "/root.tar.gz": tar({f"{tmp_path}/evil": b"x", "config.json": b"{}"})}
    with pytest.raises(TrainerError, match="cannot be unpacked"):
        fetch_https(source(f"{web}/up.tar.gz", "model.uri"), context)
    fetch_https(source(f"{web}/root.tar.gz", "model.uri"), context)
    assert not (tmp_path / "evil").exists()


def test_broken_archive_is_a_model_error(web: str, context: SourceContext) -> None:
    Files.content = {"/model.tar": b"no tar"}
    with pytest.raises(TrainerError, match="cannot be unpacked") as caught:
        fetch_https(source(f"{web}/model.tar", "model.uri"), context)
    assert caught.value.failure_class == FailureClass.MODEL


def test_https_token(web: str, context: SourceContext, tmp_path: Path) -> None:
    Files.content = {"/private/train.jsonl": b"rows"}
    with pytest.raises(TrainerError, match=r"answers 401 \(sent: no token\)"):
        fetch_https(source(f"{web}/private/train.jsonl"), context)
    write(tmp_path / "web", {"TOKEN": b"good\n"})
    token = SecretFiles(tmp_path / "web", "web")
    assert fetch_https(source(f"{web}/private/train.jsonl", secret=token), context).is_dir()


def test_https_redirect(web: str, context: SourceContext) -> None:
    Files.content = {"/train.jsonl": b"rows"}
    assert (fetch_https(source(f"{web}/moved/train.jsonl"), context) / "train.jsonl").read_bytes() == b"rows"


@pytest.fixture
def tls_web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """URL of the web server behind TLS, and the CA that its certificate needs."""
    Files.content, Files.etags, Files.gets = {"/train.jsonl": b"rows"}, True, []
    certificate, key = make_certificate(tmp_path, "web")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    server.socket = tls.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://127.0.0.1:{server.server_address[1]}", certificate
    server.shutdown()
    server.server_close()


def test_https_trusts_the_administrators_bundle(tls_web: tuple[str, Path], context: SourceContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of another CA is refused at once, with what to do; trainer.caBundle makes it a source like any other."""
    url, certificate = tls_web
    with pytest.raises(TrainerError, match=r"dataset\.uri https://.*certificate is not trusted.*trainer\.caBundle") as caught:
        fetch_https(source(f"{url}/train.jsonl"), context)
    assert caught.value.failure_class == FailureClass.DATA
    variables = {ENV_CA_BUNDLE: str(certificate)}
    trust_ca_bundle(variables)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert (fetch_https(source(f"{url}/train.jsonl"), context) / "train.jsonl").read_bytes() == b"rows"


def test_https_not_found(web: str, context: SourceContext) -> None:
    with pytest.raises(TrainerError, match="the server answers 404"):
        fetch_https(source(f"{web}/absent"), context)


def test_https_outage_ends_in_a_named_error(context: SourceContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(https_module, "OUTAGE_PATIENCE_SECONDS", 0.2)
    with pytest.raises(TrainerError, match=r"dataset\.uri http://127\.0\.0\.1:9/x\.jsonl: the server did not answer within") as caught:
        fetch_https(source("http://127.0.0.1:9/x.jsonl"), context)
    assert caught.value.failure_class == FailureClass.STORAGE_UNAVAILABLE


def test_peft_config_must_be_a_file(context: SourceContext) -> None:
    write(context.configmap_dir, {"peft/adapter_config.json": b"{}"})
    assert fetch_file(source("configmap://peft/adapter_config.json", "adapter.peftConfig"), context).read_bytes() == b"{}"
    with pytest.raises(TrainerError, match="is a directory") as caught:
        fetch_file(source("configmap://peft/", "adapter.peftConfig"), context)
    assert caught.value.failure_class == FailureClass.CONFIGURATION
