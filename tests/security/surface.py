"""All of a request that engines act on beyond the answer itself, and what becomes of it at a port.

Sources: mlx_lm.server 0.32 (`APIHandler.do_POST`), llama.cpp's server as of xllamacpp 2026.10 (its
routes, `server_task::params_from_json_cmpl`, `oaicompat_chat_params_parse`), llama-cpp-python 0.3.

In what is sent `{path}` is a file that nobody may read, `{url}` a server that nobody may ask.
"""

from typing import Any, NamedTuple


class Row(NamedTuple):
    """One thing to send, and what each engine's port answers: a status, or an error's code.

    Attributes:
        what: A field and its value, or a path.
        mlx: Of a profile of the engine mlx.
        raw: Of one of llama.cpp.
        why: The decision: refused, ignored or passed on, and the reason.
    """

    what: Any
    mlx: int | str
    raw: int | str
    why: str


PLACES = ("{path}", "file://{path}", "{url}", "//{url}", "somebody/some-model", "../../../{path}")

CHOOSERS = (
    Row("model", 200, 200, "ignored: the port and the profile decide"),
    Row("draft_model", 200, 200, "ignored: the profile's `draft_model`"),
    Row("adapters", 200, 200, "ignored: the profile's `adapters`"),
    Row("adapter_path", 200, 200, "ignored"),
    Row("lora", 200, "invalid_request", "numbers of adapters that the profile loaded, or refused"),
    Row("chat_template", 200, 200, "ignored: the model's own"),
    Row("grammar", 200, "invalid_request", "text of a grammar, not a file; checked beforehand"),
    Row("grammar_file", 200, 200, "ignored"),
    Row("mmproj", 200, 200, "ignored: the profile's `projector`"),
    Row("image", 200, 200, "ignored: pictures are parts of messages"),
    Row("image_data", 200, 200, "ignored"),
    Row("media_path", 200, 200, "ignored"),
    Row("slot_save_path", 200, 200, "ignored"),
    Row("prompt_cache", 200, 200, "ignored"),
    Row("filename", 200, 200, "ignored"),
    Row("tokenizer", 200, 200, "ignored"),
    Row("stop", 200, 200, "words to stop at"),
    Row("user", 200, 200, "ignored"),
)
"""Fields whose value is one of `PLACES`, in a chat."""

PARTS = (
    {"type": "image_url", "image_url": {"url": "{place}"}},
    {"type": "image_url", "image_url": "{place}"},
    {"type": "input_image", "image_url": "{place}"},
    {"type": "image", "image": "{place}"},
    {"type": "image", "source": {"type": "url", "url": "{place}"}},
    {"type": "image", "url": "{place}"},
    {"type": "input_audio", "input_audio": {"url": "{place}", "format": "wav"}},
    {"type": "audio_url", "audio_url": {"url": "{place}"}},
    {"type": "video_url", "video_url": {"url": "{place}"}},
    {"type": "input_video", "input_video": {"url": "{place}"}},
    {"type": "file", "file": {"file_id": "{place}"}},
    {"type": "input_file", "file_url": "{place}"},
    {"type": "document", "source": {"type": "url", "url": "{place}"}},
)
"""Parts of a message: refused, whether the model sees or not; nothing is fetched."""

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"$ref": "{url}/x.json"}}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
FIELDS = (
    Row({"tools": [TOOL]}, 200, 200, "the reference is dropped, never resolved"),
    Row({"json_schema": SCHEMA}, 200, 200, "likewise"),
    Row(
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        200, 200, "likewise",
    ),
    Row({"chat_template_kwargs": {"chat_template": "{{ 7 * 7 }}"}}, "invalid_request", 200,
        "refused where it would be a template; llama.cpp has a variable of that name"),
    Row({"chat_template_kwargs": {"enable_thinking": False}}, 200, 200, "passed on: plain values"),
    Row({"chat_template_kwargs": {"tokenizer_kwargs": {"a": 1}}}, "invalid_request", 200,
        "as above"),
    Row({"role_mapping": {"user": "x"}}, 200, 200, "own prompt only"),
    Row({"cache_prompt": False}, 200, 200, "passed on: own request only"),
    Row({"id_slot": 1}, 200, 200, "taken out: it would choose whose prompt is forgotten"),
    Row({"id_\u0073lot": 1}, 200, 200, "taken out"),
    Row({"lora": [{"id": 0, "scale": 1.0}]}, 200, 200, "passed on: what the profile loaded"),
    Row({"grammar": 'root ::= "a"'}, 200, 200, "passed on: own answer only"),
    Row({"grammar": 'root ::= "a"{3,1}'}, 200, "invalid_request", "refused: endless"),
    Row({"grammar": "%llguidance {}"}, 200, "invalid_request", "refused: another language"),
    Row({"grammar": 'root ::= "a"', "grammar_lazy": True,
         "grammar_triggers": [{"type": 99, "value": "a"}]}, 200, 200,
        "taken out: it ends the engine"),
    Row({"chat_parser": "{}", "chat_format": 99}, 200, 200, "taken out: its server's own"),
    Row({"repeat_last_n": 2**31 - 1}, 200, "invalid_request", "refused: 8 GiB at once"),
    Row({"dry_multiplier": 1, "dry_penalty_last_n": 2**31 - 1}, 200, "invalid_request", "likewise"),
    Row({"n": 100}, "invalid_request", "invalid_request", "refused: more than the profile has"),
)  # fmt: skip
"""Further fields of a chat."""

OTHERS = (
    ("GET", "/slots"), ("GET", "/slots?model=x"), ("GET", "/slots/0"), ("GET", "/%73lots"),
    ("GET", "//slots"), ("GET", "/./slots"), ("GET", "/x/../slots"), ("GET", "/v1/../slots"),
    ("GET", "/slots/"), ("GET", "/SLOTS"),
    ("POST", "/slots/0?action=save"), ("POST", "/slots/0?action=restore"),
    ("POST", "/slots/0?action=erase"),
    ("GET", "/props"), ("POST", "/props"), ("GET", "/props?autoload=1"),
    ("GET", "/metrics"),
    ("GET", "/lora-adapters"), ("POST", "/lora-adapters"),
    ("POST", "/v1/streams/lookup"), ("GET", "/v1/stream/x"), ("DELETE", "/v1/stream/x"),
    ("POST", "/v1/chat/completions/control"),
    ("GET", "/tools"), ("POST", "/tools"), ("GET", "/cors-proxy?url={url}"),
    ("POST", "/cors-proxy?url={url}"), ("GET", "/sw.js"), ("GET", "/index.html"),
    ("GET", "/{path}"), ("GET", "/../../{path}"), ("POST", "/v1/systemone"),
    ("POST", "/load"), ("POST", "/api/pull"), ("POST", "/api/delete"), ("GET", "/docs"),
    ("GET", "/openapi.json"), ("POST", "/v1/stop"), ("GET", "/v1/status"), ("POST", "/v1/reload"),
)  # fmt: skip
"""What tells of others or changes what they get: `not_found`, and causes no load."""

MODELS = (("POST", "/models/load"), ("POST", "/models/unload"), ("POST", "/v1/models"))
"""Loading and unloading are administration: `method_not_allowed`."""

OWN = (
    Row(("/completion", {"prompt": "a", "n_predict": 2}), "not_found", 200, "computes an answer"),
    Row(("/completions", {"prompt": "a", "max_tokens": 2}), "not_found", 200, "likewise"),
    Row(("/infill", {"input_prefix": "a", "input_suffix": "b"}), "not_found", "unsupported", "so"),
    Row(("/tokenize", {"content": "a"}), "not_found", 200, "likewise"),
    Row(("/detokenize", {"tokens": [1]}), "not_found", 200, "likewise"),
    Row(("/apply-template", {"messages": [{"role": "user", "content": "a"}]}), "not_found", 200,
        "shows the template around one's own words"),
    Row(("/v1/responses/input_tokens", {"input": "a"}), "not_found", 200, "counts"),
    Row(("/embedding", {"content": "a"}), "not_found", "unsupported", "computes"),
    Row(("/completion", {"prompt": "a", "json_schema": {"not": {}}}), "not_found",
        "invalid_request", "refused: what it cannot use is written into the log"),
    Row(("/v1/completions", {"prompt": "a", "json_schema": {"not": {}}}), 200,
        "invalid_request", "likewise"),
    Row(("/completion", {"prompt": "a", "grammar": "("}), "not_found", "invalid_request", "so"),
    Row(("/completion", {"prompt": {"prompt_string": "a", "multimodal_data": ["{url}"]}}),
        "not_found", "invalid_request", "bytes of a picture; no address is fetched"),
    Row(("/completion", [1]), "not_found", "invalid_request", "no object"),
)  # fmt: skip
"""Paths of llama.cpp's own that compute from the request alone."""
