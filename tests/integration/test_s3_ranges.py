"""Ranges by obstore: bytes of the objects, errors, settings and credentials as s3fs has them."""

import http.server
import logging
import os
import random
import ssl
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from types import SimpleNamespace
from typing import ClassVar

import botocore.session
import pytest

from pipelines.storage.filesystem import open_filesystem
from pipelines.storage.ranges import open_ranges
from pipelines.storage.s3_ranges import _connect, bucket_region
from tests.fault_proxy import Fault, proxied_s3

pytestmark = pytest.mark.integration
CONTENT = random.Random(1).randbytes(5000)


@pytest.fixture(scope="module")
def proxy():
    with proxied_s3("ranges") as found:
        fs, _ = open_filesystem("s3://ranges")
        for folder in ("plain", "my data/ü#%20+&=", "odd//folder"):
            fs.pipe(f"ranges/{folder}/shards/a", CONTENT)
        yield found


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, "pipelines.storage.s3_ranges")
    return lambda: [record.message for record in caplog.records if record.name.endswith("s3_ranges")]


def by_s3fs(paths, starts, ends):
    fs, _ = open_filesystem("s3://ranges", attempts=1)
    return fs.cat_ranges(paths, starts, ends, on_error="return")


@pytest.mark.parametrize("folder", ["plain", "my data/ü#%20+&="])
def test_the_bytes_of_the_objects(proxy, warnings, folder):
    proxy.change(lambda n, path: None)
    read, root = open_ranges(f"s3://ranges/{folder}/", at_once=7)
    assert root == f"ranges/{folder}"
    draw = random.Random(0)
    spans = [sorted(draw.sample(range(5001), 2)) for _ in range(60)]
    found = read([f"{root}/shards/a"] * 60, [a for a, _ in spans], [b for _, b in spans])
    assert found == [CONTENT[a:b] for a, b in spans]
    # Past the end of an object: what there is; RangeFetcher calls that truncated.
    assert read([f"{root}/shards/a"] * 2, [4990, 6000], [6000, 6010]) == [CONTENT[4990:], b""]
    assert proxy.seen == 62 and warnings() == []
    assert read([], [], []) == []


@pytest.mark.parametrize("status", [403, 400, 404, 500, 503, 429])
def test_errors_are_those_of_s3fs(proxy, status):
    proxy.change(lambda n, path: Fault(status=status) if "missing" not in path else None)
    for path in ("ranges/plain/shards/a", "ranges/plain/shards/missing", "no-such-bucket/shards/a"):
        read, _ = open_ranges(f"s3://{path.partition('/')[0]}", at_once=2)
        read._proven = True  # else the answer is s3fs's own
        (ours,), (others,) = (ask([path], [0], [5]) for ask in (read, by_s3fs))
        assert type(ours) is type(others)
        assert "Debug source" not in str(ours)


@pytest.mark.parametrize("fault", [Fault(cut=True), Fault(silent=True)])
def test_a_broken_answer_is_an_error_that_passes(proxy, fault):
    read, root = open_ranges("s3://ranges/plain", at_once=2)
    places = [f"{root}/shards/a"] * 3, [0, 100, 200], [50, 150, 250]
    proxy.change(lambda n, path: fault if n == 0 else None)
    found = read(*places)
    assert sum(isinstance(answer, OSError) for answer in found) == 1
    assert read(*places) == [CONTENT[a : a + 50] for a in (0, 100, 200)]


def test_what_obstore_cannot_reach_is_read_by_s3fs(proxy, warnings):
    proxy.change(lambda n, path: None)
    read, root = open_ranges("s3://ranges/odd//folder", at_once=2)
    for _ in range(3):
        assert read([f"{root}/shards/a"] * 2, [1, 2], [4, 5]) == [CONTENT[1:4], CONTENT[2:5]]
    again, _ = open_ranges("s3://ranges/odd//folder", at_once=3)  # which knows it
    assert again([f"{root}/shards/a"], [1], [4]) == [CONTENT[1:4]]
    (said,) = warnings()
    assert said.startswith(
        "s3://ranges/odd//folder is read by s3fs, at several times the CPU: obstore cannot"
    )


def test_readers_of_one_place_share_its_connections(proxy, monkeypatch):
    """Credentials, a region and TLS are not asked for and agreed on anew for each shard that is read."""
    made = []
    session = botocore.session.Session
    monkeypatch.setattr(botocore.session, "Session", lambda: made.append(1) or session())
    proxy.change(lambda n, path: None)
    for _ in range(3):
        read, root = open_ranges("s3://ranges/plain/shards", at_once=2)
        assert read([f"{root}/a"], [1], [4]) == [CONTENT[1:4]]
    assert len(made) == 1


def test_a_bad_start_alone_is_no_reason(proxy, warnings):
    read, root = open_ranges("s3://ranges/plain", at_once=2)
    places = [f"{root}/shards/a"] * 2, [1, 2], [4, 5]
    proxy.change(lambda n, path: Fault(status=503) if n < 2 else None)
    assert read(*places) == [CONTENT[1:4], CONTENT[2:5]]  # by s3fs
    assert proxy.seen == 5 and warnings() == []  # two, two, and one that shows that obstore can
    proxy.change(lambda n, path: Fault(status=503))
    assert all(isinstance(answer, OSError) for answer in read(*places))
    assert proxy.seen == 2  # s3fs is asked no more


def test_the_region_of_a_bucket_wherever_one_asks(proxy):
    fs, _ = open_filesystem("s3://ranges", attempts=1)
    there = {"LocationConstraint": "eu-central-1"}
    fs.call_s3("create_bucket", Bucket="frankfurt", CreateBucketConfiguration=there)
    assert bucket_region(fs, "frankfurt") == "eu-central-1"
    assert bucket_region(fs, "no-such-bucket") is None


@pytest.mark.parametrize(
    ("endpoint", "kept"),
    [
        ("https://s3.amazonaws.com", False),
        ("https://s3.eu-west-3.amazonaws.com", False),
        ("https://s3-fips.us-gov-west-1.amazonaws.com", True),
        ("https://s3.dualstack.eu-west-3.amazonaws.com", True),
        ("https://s3.cn-north-1.amazonaws.com.cn", True),
        ("https://minio.lab.example:9000", True),
    ],
)
def test_an_endpoint_that_was_chosen_is_kept(endpoint, kept):
    """Amazon's ordinary one is its bucket's, in whatever region that is; nothing is asked of any here."""
    client = SimpleNamespace(meta=SimpleNamespace(endpoint_url=endpoint, region_name="eu-west-3"))
    answer = {"BucketRegion": "ap-south-1"}
    filesystem = SimpleNamespace(
        connect=lambda: None, s3=client, anon=True, call_s3=lambda method, Bucket: answer
    )
    config = _connect(filesystem, "somewhere").config
    assert config["region"] == ("eu-west-3" if kept else "ap-south-1")
    assert config.get("endpoint") == (endpoint if kept else None)


class _Answers(http.server.BaseHTTPRequestHandler):
    """Sends the first bytes of the content, and keeps the headers that came."""

    asked: ClassVar[list[dict[str, str]]] = []
    refuses: ClassVar[int] = 0

    def do_GET(self) -> None:
        self.asked.append({name.lower(): value for name, value in self.headers.items()})
        if self.refuses:
            self.send_error(self.refuses)  # with a page, as a web server does
            return
        self.send_response(206)
        self.send_header("Content-Length", "9")
        self.send_header("Content-Range", "bytes 0-8/5000")
        self.end_headers()
        self.wfile.write(CONTENT[:9])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def bare_server(monkeypatch):
    """Its address, and what was asked; the environment says nothing of credentials."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    _Answers.asked.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def first_bytes():
    read, root = open_ranges("s3://somewhere/deep", at_once=1)
    return read([f"{root}/shards/a"], [0], [9])


def test_credentials_of_a_profile(bare_server, monkeypatch, tmp_path):
    (tmp_path / "credentials").write_text(
        "[lab]\naws_access_key_id = PROFILEKEY\naws_secret_access_key = s\naws_session_token = passing\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert first_bytes() == [CONTENT[:9]]
    (headers,) = _Answers.asked
    assert "Credential=PROFILEKEY/" in headers["authorization"]
    assert "/eu-west-3/s3/" in headers["authorization"]
    assert headers["x-amz-security-token"] == "passing"


def test_an_anonymous_reader_signs_nothing(bare_server, monkeypatch):
    monkeypatch.setenv("UNIGEOSEG_S3_ANONYMOUS", "1")
    assert first_bytes() == [CONTENT[:9]]
    assert "authorization" not in _Answers.asked[0]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, PermissionError), (403, PermissionError), (404, FileNotFoundError), (502, OSError)],
)
def test_a_refusal_without_the_words_of_s3(bare_server, monkeypatch, status, kind):
    monkeypatch.setenv("UNIGEOSEG_S3_ANONYMOUS", "1")
    monkeypatch.setattr(_Answers, "refuses", status)
    read, root = open_ranges("s3://somewhere/deep", at_once=1)
    read._proven = True  # else the answer is s3fs's own
    (error,) = read([f"{root}/shards/a"], [0], [9])
    assert type(error) is kind and str(status) in str(error)


def test_without_credentials_the_words_are_those_of_s3fs(bare_server, warnings):
    (error,) = first_bytes()
    assert type(error).__name__ == "NoCredentialsError"
    assert _Answers.asked == [] and warnings() == []


def test_a_certificate_authority_of_ones_own(bare_server, monkeypatch, tmp_path, warnings):
    """A laboratory's MinIO behind TLS that only ``AWS_CA_BUNDLE`` knows."""
    _write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    bare_server.socket = context.wrap_socket(bare_server.socket, server_side=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{bare_server.server_port}")
    monkeypatch.setenv("UNIGEOSEG_S3_ANONYMOUS", "1")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    assert first_bytes() == [CONTENT[:9]]
    assert warnings() == [] and len(_Answers.asked) == 1
    fs, root = open_filesystem("s3://somewhere/deep", attempts=1)
    assert fs.cat_ranges([f"{root}/shards/a"], [0], [9]) == first_bytes()


def _write_certificate(folder):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
