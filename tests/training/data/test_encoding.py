"""Texts to tokens: exact targets, truncation, start and end tokens."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import processors

from study.training.data.encoding import Encoded, Encoder, pad_token_id, tokenizer_fingerprint
from study.training.data.templates import Example
from tests.helpers.models import sentencepiece_like_tokenizer, tiny_tokenizer

RESPONSES = ["plain", " a leading space", "    indented\n  code\n", "\n\nlines", "ünï 中文 🙂"]


def one(context: str, target: str, length: int = 1000, special: bool = True) -> Encoded:
    encoder = Encoder(tiny_tokenizer(), length)
    return encoder.encode([Example(context, target)], add_special_tokens=special)[0]


@pytest.mark.parametrize("response", RESPONSES)
def test_the_target_decodes_back_to_the_response_exactly(response: str) -> None:
    tokenizer = tiny_tokenizer()
    encoded = one("Say it:\n", response)
    target = encoded.ids[encoded.target_start :]
    assert target[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(target[:-1]) == response
    assert tokenizer.decode(encoded.ids[: encoded.target_start]) == "Say it:\n"


@pytest.mark.parametrize("response", RESPONSES)
def test_a_tokenizer_with_a_dummy_space_does_not_put_it_inside_the_text(response: str) -> None:
    tokenizer = sentencepiece_like_tokenizer()
    encoder = Encoder(tokenizer, 1000)
    encoded = encoder.encode([Example("Say it:\n", response)], True)[0]
    whole = tokenizer("Say it:\n" + response)["input_ids"]
    # Character tokens: apart or together, the ids must be the same, start token included.
    assert encoded.ids.tolist() == [*whole, tokenizer.eos_token_id]
    assert encoded.target_start == len(tokenizer("Say it:\n")["input_ids"])


def test_raw_text_has_loss_on_all_but_the_first_token() -> None:
    encoded = one("", "hello")
    assert encoded.target_start == 1
    assert len(encoded.ids) == 6
    with_start = Encoder(sentencepiece_like_tokenizer(), 100).encode([Example("", "hello")], True)
    assert with_start[0].ids[0] == 1 and with_start[0].target_start == 1


def test_a_long_prompt_loses_its_beginning_and_the_response_stays_whole() -> None:
    encoded = one("0123456789" * 3, "answer", length=20)
    text = tiny_tokenizer().decode(encoded.ids)
    assert text == "7890123456789"[-13:] + "answer</s>"
    assert encoded.truncated and len(encoded.ids) == 20


def test_a_long_response_keeps_its_start_and_is_not_taught_to_stop() -> None:
    encoded = one("prompt", "abcdefghijklmnopqrstuvwxyz", length=16)
    assert tiny_tokenizer().decode(encoded.ids) == "promptabcdefghij"
    assert encoded.truncated and encoded.target_start == 6


def test_a_long_prompt_keeps_half_the_length_beside_a_long_response() -> None:
    encoded = one("0123456789", "abcdefghijklmnopqrstuvwxyz", length=16)
    assert tiny_tokenizer().decode(encoded.ids) == "23456789abcdefgh"
    assert encoded.truncated and not encoded.empty


def test_the_start_token_survives_truncation() -> None:
    tokenizer = sentencepiece_like_tokenizer()
    encoded = Encoder(tokenizer, 16).encode([Example("0123456789" * 3, "answer")], True)[0]
    assert tokenizer.decode(encoded.ids) == "<s>23456789answer</s>"
    assert encoded.target_start == 9


def test_what_fits_exactly_is_not_counted_as_truncated() -> None:
    assert not one("prompt", "answer", length=13).truncated
    assert one("prompt", "answer", length=12).truncated


@pytest.mark.parametrize(("target", "length"), [("", 20), (" \n ", 20), ("a", 1)])
def test_an_example_without_a_target_is_empty(target: str, length: int) -> None:
    assert one("", target, length=length).empty


def test_texts_to_classify_keep_the_tokenizers_own_special_tokens_when_cut() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    long, short = Encoder(tokenizer, 8).encode_texts(
        [Example("", "abcdefghijkl"), Example("", "abc")]
    )
    assert long.truncated and not short.truncated
    assert tokenizer.decode(long.ids) == "<s>abcdef</s>"
    assert tokenizer.decode(short.ids) == "<s>abc</s>"


def test_batches_of_a_thousand_keep_their_order() -> None:
    encoder = Encoder(tiny_tokenizer(), 100)
    encoded = encoder.encode([Example("", f"text {i}") for i in range(2500)], False)
    tokenizer = tiny_tokenizer()
    assert [tokenizer.decode(encoded[i].ids) for i in (0, 999, 1000, 2499)] == [
        "text 0", "text 999", "text 1000", "text 2499",
    ]  # fmt: skip


def test_the_tokenizer_fingerprint_sees_the_vocabulary_but_not_the_last_call() -> None:
    tokenizer = tiny_tokenizer()
    before = tokenizer_fingerprint(tokenizer)
    tokenizer("abcdef", truncation=True, max_length=3)
    assert tokenizer_fingerprint(tokenizer) == before
    tokenizer.add_tokens(["new-token"])
    assert tokenizer_fingerprint(tokenizer) != before


def test_padding_falls_back_to_the_end_token() -> None:
    tokenizer = sentencepiece_like_tokenizer()
    assert pad_token_id(tokenizer) == tokenizer.eos_token_id
    assert pad_token_id(tiny_tokenizer()) == 0
    assert one("a", "b").ids.dtype == np.int32
