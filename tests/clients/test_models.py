"""Models that arrive and are made, by the official `ollama` client, from a real registry."""

import hashlib
import json

import ollama
import pytest

from conftest import MODEL, MODEL_FILE

QUESTION = [{"role": "user", "content": "Name the capital of France."}]
SYSTEM = "You always answer with one word."


@pytest.fixture
def client(server):
    return ollama.Client(host=server)


@pytest.fixture(scope="module")
def hosted(registry):
    """The small model with parameters, a system prompt and a licence, as Ollama's registry would have it."""
    params = json.dumps({"temperature": 0, "num_predict": 7, "stop": ["<|im_end|>"]}).encode()
    layers = [
        ("model", MODEL_FILE.read_bytes()),
        ("system", SYSTEM.encode()),
        ("params", params),
        ("license", b"Apache License 2.0"),
    ]
    return registry.push("library/tiny", "135m", layers)


@pytest.fixture
def made(client):
    """Names that a test gives, whose models are removed after it."""
    names = []
    yield names
    for name in names:
        client.delete(name)


def names(client):
    return [model.model for model in client.list().models]


def test_a_pull_tells_every_step_and_the_model_answers_with_its_own_parameters(client, hosted, made):
    steps = list(client.pull(hosted, insecure=True, stream=True))
    made.append(hosted)
    words = [step.status for step in steps]
    assert words[0] == "pulling manifest"
    assert words[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    weights = hashlib.sha256(MODEL_FILE.read_bytes()).hexdigest()
    told = [step for step in steps if step.digest == f"sha256:{weights}"]
    assert told, "the weights were never told of"
    assert told[-1].status == f"pulling {weights[:12]}"
    assert told[-1].completed == told[-1].total == MODEL_FILE.stat().st_size
    assert hosted in names(client)
    answer = client.chat(hosted, QUESTION)
    assert answer.eval_count <= 7


def test_a_second_pull_finds_everything_here(client, hosted, made):
    client.pull(hosted, insecure=True)
    made.append(hosted)
    assert client.pull(hosted, insecure=True).status == "success"


def test_show_tells_what_the_manifest_says(client, hosted, made):
    client.pull(hosted, insecure=True)
    made.append(hosted)
    shown = client.show(hosted)
    assert shown.license == "Apache License 2.0"
    assert "num_predict" in shown.parameters and "7" in shown.parameters
    assert f"SYSTEM {SYSTEM}" in shown.modelfile
    assert shown.modelfile.startswith("FROM ")


def test_what_is_not_in_the_registry_is_an_error(client, registry):
    with pytest.raises(ollama.ResponseError) as refused:
        client.pull(f"{registry.address}/library/nothing:latest", insecure=True)
    assert refused.value.status_code == 404
    with pytest.raises(ollama.ResponseError):
        list(client.pull(f"{registry.address}/library/nothing:latest", insecure=True, stream=True))


def test_a_model_is_made_of_another_with_its_own_words(client, made):
    parameters = {"temperature": 0, "num_predict": 5, "stop": ["END"]}
    messages = [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "One."}]
    steps = client.create("brief", from_=MODEL, system=SYSTEM, parameters=parameters, messages=messages, stream=True)
    assert [step.status for step in steps][-1] == "success"
    made.append("brief")
    shown = client.show("brief")
    assert SYSTEM in shown.modelfile
    assert "num_predict" in shown.parameters
    assert client.chat("brief", QUESTION).eval_count <= 5
    assert client.chat("brief", QUESTION, options={"num_predict": 2}).eval_count <= 2


def test_a_model_is_made_of_a_file_that_is_sent(client, made):
    digest = client.create_blob(MODEL_FILE)
    assert digest == f"sha256:{hashlib.sha256(MODEL_FILE.read_bytes()).hexdigest()}"
    assert client.create("sent", files={"model.gguf": digest}).status == "success"
    made.append("sent")
    assert client.show("sent").details.quantization_level == "Q4_1"


def test_what_cannot_be_made_is_refused_by_name(client):
    with pytest.raises(ollama.ResponseError, match="adapters is not supported yet"):
        client.create("new", from_=MODEL, adapters={"a.gguf": "sha256:" + "0" * 64})
    with pytest.raises(ollama.ResponseError, match="quantize is not supported yet"):
        client.create("new", from_=MODEL, quantize="q4_K_M")


def test_a_copy_is_a_second_name_and_survives_the_first(client, made):
    client.create("first", from_=MODEL, system=SYSTEM)
    client.copy("first", "second")
    made.append("second")
    client.delete("first")
    assert "first:latest" not in names(client)
    assert client.chat("second", QUESTION, options={"num_predict": 3}).eval_count <= 3
    with pytest.raises(ollama.ResponseError) as absent:
        client.copy("first", "third")
    assert absent.value.status_code == 404
