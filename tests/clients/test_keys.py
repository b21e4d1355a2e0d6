"""The official clients against a server that asks for a key."""

import ollama
import openai
import pytest

from conftest import MODEL, running

ASK = [{"role": "user", "content": "Name the capital of France."}]


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A server that asks for keys: its address, and one that is for asking alone."""
    with running(tmp_path_factory.mktemp("home"), "--require-key") as server:
        yield server.base, server.command("key", "create", "client", "--scopes", "chat")


def test_openai_gets_in_with_its_api_key_and_not_without_a_right_one(closed):
    base, key = closed
    client = openai.OpenAI(base_url=f"{base}/v1", api_key=key, max_retries=0)
    answer = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=8)
    assert answer.choices[0].message.content
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{base}/v1", api_key="sk-wrong", max_retries=0).models.list()


def test_ollama_gets_in_with_a_header_and_is_refused_what_its_key_is_not_for(closed):
    base, key = closed
    client = ollama.Client(base, headers={"Authorization": f"Bearer {key}"})
    assert client.chat(MODEL, messages=ASK, options={"num_predict": 8}).message.content
    with pytest.raises(ollama.ResponseError) as refused:
        client.delete(MODEL)
    assert refused.value.status_code == 403
    with pytest.raises(ollama.ResponseError) as unknown:
        ollama.Client(base).list()
    assert unknown.value.status_code == 401
