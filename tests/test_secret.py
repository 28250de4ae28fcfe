"""A secret is given away by `reveal` and by nothing else."""

import copy
import dataclasses
import json
import pickle
import pprint
import traceback

import attrs
import cattrs
import pytest

from chatbridge.secret import Secret

TEXT = "sk-live-0123456789"


@attrs.define
class Options:
    key: Secret


@dataclasses.dataclass
class PlainOptions:
    key: Secret


def test_reveal_gives_the_text() -> None:
    assert TEXT == Secret(TEXT).reveal()


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        Secret("")


@pytest.mark.parametrize(
    "shown",
    [
        repr(Secret(TEXT)),
        str(Secret(TEXT)),
        f"{Secret(TEXT)}",
        f"{Secret(TEXT)!r:>40}".strip(),
        f"{Secret(TEXT):>40}",
        "{:d}".format(Secret(TEXT)),  # noqa: UP032  # the spec is what is tested
        "%s" % Secret(TEXT),  # noqa: UP031  # the operator is what is tested
        pprint.pformat(Secret(TEXT)),
    ],
)
def test_every_way_of_showing_it_shows_stars(shown: str) -> None:
    assert "***" == shown


@pytest.mark.parametrize(
    "walked",
    [
        attrs.asdict(Options(Secret(TEXT))),
        attrs.astuple(Options(Secret(TEXT))),
        cattrs.unstructure(Options(Secret(TEXT))),
        dataclasses.asdict(PlainOptions(Secret(TEXT))),
        dataclasses.astuple(PlainOptions(Secret(TEXT))),
    ],
)
def test_helpers_that_walk_objects_do_not_reach_the_text(walked: object) -> None:
    assert TEXT not in repr(walked)
    with pytest.raises(TypeError):
        json.dumps(walked)


def test_it_has_no_attributes_for_vars_to_show() -> None:
    with pytest.raises(TypeError):
        vars(Secret(TEXT))


def test_a_traceback_with_locals_shows_stars() -> None:
    def fail(secret: Secret) -> None:
        raise RuntimeError(f"no luck with {secret}")

    with pytest.raises(RuntimeError) as caught:
        fail(Secret(TEXT))
    report = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())

    assert "secret = ***" in report
    assert TEXT not in report


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_is_refused_and_says_what_to_do(protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot be pickled; store a reference"):
        pickle.dumps(Secret(TEXT), protocol)


def test_a_copy_is_the_secret_itself() -> None:
    secret = Secret(TEXT)

    assert secret is copy.copy(secret)
    assert secret is copy.deepcopy(secret)


@pytest.mark.parametrize("text", [TEXT, "ключ", "half \ud800"])
def test_equal_texts_make_equal_secrets(text: str) -> None:
    assert Secret(text) == Secret(text)
    assert Secret(text) != Secret(text + "x")


def test_a_secret_is_no_str_and_never_equals_one() -> None:
    secret: object = Secret(TEXT)

    assert not isinstance(secret, str)
    assert secret != TEXT
    assert TEXT != secret


def test_a_secret_cannot_be_hashed() -> None:
    with pytest.raises(TypeError):
        hash(Secret(TEXT))
