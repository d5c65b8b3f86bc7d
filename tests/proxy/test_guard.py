import pytest

from llmd.errors import ForbiddenOriginError, InvalidRequestError, UnauthorizedError
from llmd.proxy.guard import Guard, MediaTypeError
from llmd.proxy.head import Head


def request(host=b"localhost", method=b"POST", path="/v1/chat/completions", minor=1, **fields):
    made = Head(method, path.encode(), minor=minor)
    made.fields = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    if host is not None:
        made.fields[b"host"] = host
    return made


def page_request(**fields):
    return request(
        **{"origin": b"https://chat.example", "content_type": b"application/json", **fields}
    )


@pytest.mark.parametrize(
    "host",
    [
        b"localhost",
        b"LocalHost:8081",
        b"localhost.",
        b"127.0.0.1",
        b"127.0.0.1:8081",
        b"127.1.2.3:1",
        b"[::1]",
        b"[::1]:8081",
        b"192.168.1.5:8081",
        b"studio.local:8081",
    ],
)
def test_local_name_is_admitted(host):
    guard = Guard(allowed_hosts=["Studio.local"], addresses=["127.0.0.1", "192.168.1.5"])

    assert guard.admit(request(host)) == b""


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example",
        b"localhost.evil.example",
        b"evil.example:8081",
        b"127.0.0.1.evil.example",
        b"192.168.1.6",
        b"[fe80::1]:8081",
        b"localhostx",
    ],
)
def test_foreign_name_is_refused(host):
    with pytest.raises(ForbiddenOriginError):
        Guard(addresses=["127.0.0.1", "192.168.1.5"]).admit(request(host))


@pytest.mark.parametrize("host", [b"", b":8081", b"[::1", b"localhost:80x", b"[::1]x", b"a@b:c:d"])
def test_malformed_host_is_refused(host):
    with pytest.raises(InvalidRequestError):
        Guard().admit(request(host))


def test_missing_host_is_refused_in_1_1_and_admitted_in_1_0():
    with pytest.raises(InvalidRequestError):
        Guard().admit(request(None))
    assert Guard().admit(request(None, minor=0)) == b""


def test_any_address_is_admitted_when_bound_to_all():
    guard = Guard(addresses=["0.0.0.0"])

    assert guard.admit(request(b"10.0.0.7:8081")) == b""
    with pytest.raises(ForbiddenOriginError):
        guard.admit(request(b"evil.example"))


def test_host_that_was_admitted_once_is_remembered_and_others_are_not():
    guard = Guard()

    assert guard.admit(request(b"localhost:1")) == b""
    assert guard.admit(request(b"localhost:1")) == b""
    with pytest.raises(ForbiddenOriginError):
        guard.admit(request(b"localhost2:1"))


@pytest.mark.parametrize(
    "origin",
    [
        b"null",
        b"http://evil.example",
        b"http://localhost:3000",
        b"http://127.0.0.1:8081",
        b"https://chat.example.evil.example",
        b"http://chat.example",
        b"chrome-extension://abc",
        b"",
    ],
)
def test_origin_that_is_not_configured_is_refused(origin):
    with pytest.raises(ForbiddenOriginError):
        Guard(cors_origins=["https://chat.example"]).admit(request(origin=origin))


def test_configured_origin_is_admitted_and_told_so():
    guard = Guard(cors_origins=["https://Chat.example/"])

    lines = guard.admit(page_request(sec_fetch_site=b"cross-site"))

    assert b"Access-Control-Allow-Origin: https://chat.example\r\nVary: Origin\r\n" in lines
    assert b"X-LLMD-Profile" in lines


def test_star_admits_any_origin_but_null():
    guard = Guard(cors_origins=["*"])

    assert b"https://any.example" in guard.admit(page_request(origin=b"https://any.example"))
    with pytest.raises(ForbiddenOriginError):
        guard.admit(request(origin=b"null"))


@pytest.mark.parametrize("site", [b"cross-site", b"same-site", b" Cross-Site"])
def test_request_that_another_site_caused_is_refused(site):
    with pytest.raises(ForbiddenOriginError):
        Guard().admit(request(sec_fetch_site=site))


@pytest.mark.parametrize("site", [b"none", b"same-origin"])
def test_request_that_the_user_caused_is_admitted(site):
    assert Guard().admit(request(method=b"GET", sec_fetch_site=site)) == b""


@pytest.mark.parametrize(
    "kind",
    [
        b"text/plain",
        b"text/plain; application/json",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=application/json",
        b"application/jsonx",
        b"text/x+json",
        b"application/json, text/plain",
        b"",
    ],
)
@pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH"])
def test_page_that_is_admitted_sends_json_only(kind, method):
    guard = Guard(cors_origins=["https://chat.example"])

    with pytest.raises(MediaTypeError) as refused:
        guard.authorize(page_request(method=method, content_type=kind))
    assert (refused.value.status, refused.value.code) == (415, "invalid_request")


def test_page_that_names_no_media_type_is_refused():
    """`navigator.sendBeacon` with a nameless blob."""
    sent = page_request()
    del sent.fields[b"content-type"]

    with pytest.raises(MediaTypeError):
        Guard(cors_origins=["https://chat.example"]).authorize(sent)
    with pytest.raises(MediaTypeError):
        Guard().authorize(request(sec_fetch_site=b"none"))


@pytest.mark.parametrize(
    "kind", [b"application/json", b"Application/JSON ; charset=utf-8", b"application/x.y+json"]
)
def test_json_of_an_admitted_page_passes_under_any_of_its_names(kind):
    Guard(cors_origins=["https://chat.example"]).authorize(page_request(content_type=kind))


def test_program_sends_what_it_likes():
    """curl calls JSON a form unless it is told."""
    Guard().authorize(request(content_type=b"application/x-www-form-urlencoded"))


@pytest.mark.parametrize(
    "fields",
    [
        {"authorization": b"Bearer two"},
        {"authorization": b"bearer  two "},
        {"x_api_key": b"one"},
    ],
)
def test_known_key_is_admitted(fields):
    Guard(api_keys=["one", "two"]).authorize(request(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"authorization": b"Bearer three"},
        {"authorization": b"Basic one"},
        {"authorization": b"Bearer"},
        {"authorization": b"one"},
        {"x_api_key": b"on"},
        {"x_api_key": b""},
        {"x_api_key": b"one", "authorization": b"Bearer wrong"},
    ],
)
def test_unknown_key_is_refused(fields):
    with pytest.raises(UnauthorizedError):
        Guard(api_keys=["one", "two"]).authorize(request(**fields))


def test_health_and_preflight_need_no_key():
    guard = Guard(api_keys=["one"], cors_origins=["https://chat.example"])

    guard.authorize(request(method=b"GET", path="/health"))
    guard.authorize(
        request(
            method=b"OPTIONS",
            origin=b"https://chat.example",
            access_control_request_method=b"POST",
        )
    )


def test_preflight_echoes_the_headers_asked_for():
    asked = request(
        method=b"OPTIONS",
        origin=b"https://chat.example",
        access_control_request_method=b"POST",
        access_control_request_headers=b"authorization,content-type",
        access_control_request_private_network=b"true",
    )

    lines = Guard(cors_origins=["https://chat.example"]).preflight(asked)

    assert b"Access-Control-Allow-Headers: authorization,content-type\r\n" in lines
    assert b"Access-Control-Allow-Private-Network: true\r\n" in lines
    assert b"Access-Control-Max-Age" in lines


def test_options_without_an_origin_tells_the_methods():
    assert Guard().preflight(request(method=b"OPTIONS")).startswith(b"Allow: ")
