"""The official `openai` client, unchanged."""

import json

import openai
import pytest

from conftest import MODEL

QUESTION = [{"role": "user", "content": "Name the capital of France."}]


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server}/v1", api_key="unused", max_retries=0)


def test_models_are_listed_and_found(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by


def test_a_completion_answers_with_usage(client):
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_completion_tokens=24
    )
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_stream_ends_with_usage_when_asked(client):
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=QUESTION,
            temperature=0,
            max_completion_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "Paris" in text
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] in ("stop", "length")


def test_several_choices_differ_under_one_seed(client):
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Invent a name for a cat."}],
        n=3,
        seed=3,
        temperature=1.3,
        max_completion_tokens=16,
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1


def test_logprobs_come_with_every_token(client):
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_completion_tokens=8, logprobs=True, top_logprobs=3
    )
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert max(rival.logprob for rival in token.top_logprobs) == pytest.approx(token.logprob, abs=1e-4)


def test_logit_bias_can_forbid_a_token(client):
    plain = client.completions.create(model=MODEL, prompt="1, 2, 3,", temperature=0, max_tokens=1, logprobs=1)
    assert plain.usage.completion_tokens == 1
    chat = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_completion_tokens=4, logit_bias={"0": 100}
    )
    assert chat.choices[0].finish_reason == "stop" and not chat.choices[0].message.content


def test_a_json_schema_is_kept(client):
    schema = {
        "type": "object",
        "properties": {"answer": {"type": "string", "maxLength": 20}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        temperature=0,
        max_completion_tokens=64,
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"answer"}


def test_a_prompt_beyond_the_context_is_refused_with_the_numbers(client):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "word " * 200_000}], max_completion_tokens=1
        )
    assert error.value.code == "context_length_exceeded"
    assert any(character.isdigit() for character in str(error.value))


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-99", messages=QUESTION)


def test_a_text_completion_continues_the_prompt(client):
    answer = client.completions.create(model=MODEL, prompt="1, 2, 3, 4,", temperature=0, max_tokens=8)
    assert "5" in answer.choices[0].text
