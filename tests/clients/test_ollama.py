"""The official `ollama` client, unchanged."""

import json

import ollama
import pytest

from conftest import MODEL

QUESTION = [{"role": "user", "content": "Name the capital of France."}]
GREEDY = {"temperature": 0, "num_predict": 24}


@pytest.fixture
def client(server):
    return ollama.Client(host=server)


def test_the_list_names_the_model_with_its_details(client):
    (model,) = client.list().models
    assert model.model == MODEL
    assert model.size > 90_000_000
    assert model.details.quantization_level == "Q4_1"
    assert model.details.family == "llama"


def test_show_tells_what_the_model_is(client):
    shown = client.show(MODEL)
    assert "completion" in shown.capabilities
    assert shown.modelinfo["general.architecture"] == "llama"
    assert "<|im_start|>" in shown.template


def test_a_chat_answers_with_counts_and_times(client):
    answer = client.chat(MODEL, QUESTION, options=GREEDY)
    assert "Paris" in answer.message.content
    assert answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count > 20
    assert 0 < answer.eval_count <= 24
    assert answer.eval_duration > 0 and answer.total_duration > answer.eval_duration


def test_a_stream_says_the_same_as_a_whole_answer(client):
    whole = client.chat(MODEL, QUESTION, options=GREEDY).message.content
    parts = list(client.chat(MODEL, QUESTION, options=GREEDY, stream=True))
    assert "".join(part.message.content for part in parts) == whole
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]


def test_generate_continues_from_its_context(client):
    first = client.generate(MODEL, "My name is Ada. Say hello to me.", options=GREEDY)
    second = client.generate(MODEL, "What is my name?", context=first.context, options=GREEDY)
    assert len(second.context) > len(first.context)
    assert second.prompt_eval_count > first.prompt_eval_count


def test_a_schema_is_kept(client):
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "population": {"type": "integer"}},
        "required": ["city", "population"],
    }
    answer = client.chat(MODEL, QUESTION, format=schema, options={"temperature": 0, "num_predict": 100})
    parsed = json.loads(answer.message.content)
    assert set(parsed) == {"city", "population"} and isinstance(parsed["population"], int)


def test_a_seed_repeats_the_draw(client):
    options = {"temperature": 1.2, "seed": 7, "num_predict": 16}
    # The first one computes the whole prompt, the others its last token: in another shape, which rounds otherwise.
    _, *answers = [client.generate(MODEL, "Once upon a time", options=options).response for _ in range(3)]
    assert len(set(answers)) == 1


def test_a_stop_string_ends_the_answer_before_it(client):
    answer = client.generate(MODEL, "1, 2, 3, 4,", raw=True, options={**GREEDY, "stop": ["7"]})
    assert "6" in answer.response and "7" not in answer.response
    assert answer.done_reason == "stop"


def test_an_unknown_model_is_404_with_the_nearest_name(client):
    with pytest.raises(ollama.ResponseError) as error:
        client.chat("smollm2:135n", QUESTION)
    assert error.value.status_code == 404
    assert MODEL in error.value.error


def test_a_model_can_be_loaded_listed_and_unloaded(client):
    client.generate(MODEL, keep_alive="5m")
    (loaded,) = client.ps().models
    assert loaded.model == MODEL and loaded.context_length > 0 and loaded.size_vram == 0
    assert client.generate(MODEL, keep_alive=0).done_reason == "unload"
    assert client.ps().models == []
