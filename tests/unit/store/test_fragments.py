"""The bytes of one image in a shard, taken apart as ``tarfile`` does it."""

import io
import json
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.store.record import BadRecord, parse_fragment
from pipelines.store.writer import tar_member

RECORD = json.dumps({"samples": [], "text": "häuser"}).encode()
NAMES = st.text("abc_Ä/-", min_size=1, max_size=120).map(
    lambda text: text.strip("/").replace("//", "/") or "a"
)


def archive(form, key, image):
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=form) as tar:
        for suffix, body in (("png", image), ("json", RECORD)):
            info = tarfile.TarInfo(f"{key}.{suffix}")
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return held.getvalue()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(key=NAMES, image=st.binary(max_size=1500))
@settings(max_examples=60, deadline=None, derandomize=True, database=None)
def test_members_are_those_of_tarfile(form, key, image):
    try:
        data = archive(form, key, image)
    except ValueError:  # a name that this form does not hold
        return
    found = parse_fragment(data)
    assert found.image == image and found.record["text"] == "häuser"


@given(st.integers(0, 511), st.integers(1, 255))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_a_damaged_header_is_an_unreadable_record_or_says_the_same(place, change):
    data = bytearray(tar_member("a.png", b"picture") + tar_member("a.json", RECORD))
    data[place] ^= change
    try:
        found = parse_fragment(bytes(data))
    except BadRecord as error:
        assert error.reason == "unreadable_record"
    else:  # a byte without meaning, such as one behind the end of a number
        assert found.image == b"picture" and found.record["samples"] == []


def test_a_member_that_is_cut_short_is_named():
    data = tar_member("a.png", b"x" * 3000)
    with pytest.raises(BadRecord, match=r"a\.png is cut short"):
        parse_fragment(data[:2000])
