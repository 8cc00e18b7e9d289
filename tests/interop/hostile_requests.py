"""Hostile requests: what a client may send, and everything near it.

A request is made for a route of the broker's own table from seeds that are worth something (tokens,
handles, evidence, ids), then mutated: parameters dropped, doubled, renamed, swapped; bytes flipped
and cut; types changed; things made huge, empty, deep, unicode; methods, media types, paths and
headers replaced. A route that this file does not know gets the same treatment.
"""

import json
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

from hypothesis import strategies as st

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
CONTROL = "urn:dayfly:token-type:task-control"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
FORM = "application/x-www-form-urlencoded"

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "get", "BREW"]
MEDIA_TYPES = [
    FORM,
    "application/json",
    "application/json; charset=utf-8",
    "application/json; charset=utf-16",
    "application/xml",
    "multipart/form-data; boundary=x",
    "text/plain",
    "application/x-www-form-urlencoded; charset=shift_jis",
    "",
    "/",
    "application/jwt",
]


@dataclass
class Request:
    """One HTTP request, byte by byte, and the secrets that stand in it."""

    listener: str
    method: str
    target: str
    headers: list
    body: bytes
    note: str = ""

    def head(self):
        lines = [f"{self.method} {self.target} HTTP/1.1"] + [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n"

    def path(self):
        return self.target.partition("?")[0]

    def has(self, name):
        return [value for key, value in self.headers if key.lower() == name]

    def __repr__(self):
        body = self.body if len(self.body) < 2000 else self.body[:2000] + b"..."
        return f"{self.listener} {self.head()[:3000]!r} {body!r}"


@dataclass
class Seeds:
    """What is worth something, while it is new; other threads add to it.

    The operator's token is only ever sent as a caller's own: whoever presents it may revoke it, and
    there is one.
    """

    evidence: list = field(default_factory=list)
    handles: list = field(default_factory=list)
    tokens: list = field(default_factory=list)
    operator: list = field(default_factory=list)
    ids: list = field(default_factory=list)
    audiences: list = field(default_factory=list)
    tasks: list = field(default_factory=list)

    def subjects(self):
        return self.evidence + self.handles + self.tokens


small = st.text(max_size=20)
odd = st.one_of(
    small,
    st.sampled_from(
        ["", " ", "0", "-1", "1e999", "null", "true", "[]", "{}", "%00", "%", "%zz", "\x00", "\x7f", "é", "\u202e"]
        + ["' OR 1=1 --", "<script>", "../../etc/passwd", "${jndi:ldap://x}", "\ud83d\ude00", "9" * 40]
    ),
    st.sampled_from(["A", "9", "%41", "[", "é"]).map(lambda unit: unit * 3000),
    st.integers().map(str),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | small,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(small, inner, max_size=4),
    max_leaves=8,
)


def one_of(draw, values, otherwise=""):
    values = list(values)
    return draw(st.sampled_from(values)) if values else otherwise


def dented(draw, text):
    """A value that was right, with one thing wrong."""
    if not text:
        return draw(odd)
    at = draw(st.integers(0, len(text) - 1))
    letter = draw(st.sampled_from("AZaz09-_.=+/ \x00é"))
    how = draw(st.integers(0, 7))
    return [
        text[:at],
        text[at:],
        text[:at] + letter + text[at + 1 :],
        text[:at] + letter + text[at:],
        text + text,
        text + ".",
        text.swapcase(),
        text[::-1],
    ][how]


def details(draw, seeds):
    template = one_of(draw, seeds.tasks)
    value = {"type": "dayfly_task", "template": template}
    for key in draw(st.lists(st.sampled_from(["actions", "ttl", "ticket", "type", "locations", "extra"]), max_size=3)):
        value[key] = draw(st.one_of(st.just(["deploy:create"]), st.integers(-5, 5000), json_values))
    how = draw(st.integers(0, 4))
    text = json.dumps([value] * how if how else value, ensure_ascii=draw(st.booleans()))
    return dented(draw, text) if draw(st.integers(0, 3)) == 0 else text


def token_fields(draw, seeds):
    by_handle = draw(st.booleans())
    subject = one_of(draw, seeds.handles if by_handle else seeds.evidence, "x")
    fields = [
        ("grant_type", EXCHANGE),
        ("subject_token_type", CONTROL if by_handle else JWT),
        ("subject_token", subject),
    ]
    if draw(st.booleans()):
        fields.append(("scope", one_of(draw, seeds.tasks)))
    else:
        fields.append(("authorization_details", details(draw, seeds)))
    extra = {
        "resource": st.sampled_from(list(seeds.audiences)),
        "audience": st.sampled_from(list(seeds.audiences)),
        "requested_token_type": st.sampled_from([CONTROL, JWT, "urn:ietf:params:oauth:token-type:access_token"]),
        "supersede": st.integers(-2, 70).map(str),
        "task_control_s256": st.text("abcdefghijklmnopqrstuvwxyzAEIMQUYcgkosw048", min_size=43, max_size=43),
        "actor_token": small,
    }
    for name in draw(st.lists(st.sampled_from(sorted(extra)), max_size=2, unique=True)):
        fields.append((name, draw(extra[name])))
    return fields


def asking_fields(draw, seeds):
    """Introspection and revocation: a token, perhaps with a client of its own."""
    pool = one_of(draw, [seeds.tokens, seeds.tokens, seeds.handles, seeds.evidence])
    fields = [("token", one_of(draw, pool, "x"))]
    if draw(st.booleans()):
        fields.append(("token_type_hint", draw(st.sampled_from(["access_token", "refresh_token", "x"]))))
    if draw(st.integers(0, 3)) == 0:
        fields.append(("client_assertion_type", ASSERTION))
        fields.append(("client_assertion", one_of(draw, seeds.evidence + seeds.tokens, "x")))
    return fields


def mutated(draw, fields, seeds):
    fields = list(fields)
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2, 3]))):
        if not fields:
            break
        at = draw(st.integers(0, len(fields) - 1))
        name, value = fields[at]
        how = draw(st.integers(0, 8))
        if how == 0:
            del fields[at]
        elif how == 1:
            fields.append(fields[at])
        elif how == 2:
            fields[at] = (dented(draw, name), value)
        elif how in (3, 4):
            fields[at] = (name, dented(draw, value))
        elif how == 5:
            fields[at] = (name, draw(odd))
        elif how == 6:
            other = draw(st.integers(0, len(fields) - 1))
            fields[at], fields[other] = (name, fields[other][1]), (fields[other][0], value)
        elif how == 7:
            fields.append((draw(small), draw(odd)))
        else:
            fields[at] = (name, one_of(draw, seeds.subjects(), value))
    return fields


def form_body(draw, fields):
    escape = draw(st.sampled_from([quote_plus, quote_plus, quote_plus, quote, lambda text, **_: text]))
    pairs = [f"{escape(name, errors='surrogatepass')}={escape(value, errors='surrogatepass')}" for name, value in fields]
    return draw(st.sampled_from(["&", "&", "&", "&&", ";", "\n"])).join(pairs).encode("utf-8", "surrogatepass")


def json_body(draw, seeds):
    how = draw(st.integers(0, 7))
    if how <= 2:
        known = {"reason": draw(small), "block": draw(st.booleans())}
        keep = draw(st.lists(st.sampled_from(sorted(known)), max_size=2, unique=True))
        return json.dumps({name: known[name] for name in keep}).encode()
    if how == 3:
        return b'{"reason":"a","reason":"b"}'
    if how == 4:
        depth = draw(st.sampled_from([15, 16, 17, 1000, 20000]))
        return b'{"reason":' * depth + b"1" + b"}" * depth
    if how == 5:
        return b"\xef\xbb\xbf{}" if draw(st.booleans()) else draw(st.binary(max_size=60))
    if how == 6:
        return b'{"reason":"' + b"r" * draw(st.sampled_from([300, 5000, 70_000])) + b'"}'
    return json.dumps(draw(json_values)).encode("utf-8", "surrogatepass")


def headers(draw, seeds, host):
    found = [("Host", host)]
    who = draw(st.integers(0, 9))
    if who <= 2:
        found.append(("Authorization", "Bearer " + one_of(draw, seeds.operator)))
    elif who == 3:
        found.append(("Authorization", "Bearer " + one_of(draw, seeds.handles, "x")))
    elif who == 4:
        scheme = draw(st.sampled_from(["Bearer", "bearer", "DPoP", "Basic", "Negotiate", "Bearer Bearer", ""]))
        secret = one_of(draw, seeds.subjects() + seeds.operator, "x")
        found.append(("Authorization", f"{scheme} {dented(draw, secret) if draw(st.booleans()) else secret}"))
    elif who == 5:
        found += [("Authorization", "Bearer " + one_of(draw, seeds.subjects() + seeds.operator, "x"))] * 2
    games = {
        "DPoP": st.sampled_from(["x", "a.b.c", ""] + list(seeds.tokens)[:3]),
        "X-Request-Id": st.sampled_from(["mine-1", "a b", "x" * 129, "é", ""]),
        "traceparent": st.sampled_from(["00-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-x", ""]),
        "Accept": st.sampled_from(["*/*", "text/html", "application/jwt", ""]),
        "Accept-Encoding": st.sampled_from(["gzip", "identity;q=0", "br"]),
        "If-None-Match": st.sampled_from(["*", 'W/"x"', '"']),
        "Forwarded": st.just("for=127.0.0.1;host=x"),
        "X-Forwarded-For": st.just("127.0.0.1"),
        "X-HTTP-Method-Override": st.sampled_from(["DELETE", "POST"]),
        "Cookie": st.sampled_from(["a=b", "x" * 5000]),
        "Origin": st.just("https://evil.example"),
        "Range": st.just("bytes=0-1"),
        "X-Many": st.just("y" * 17_000),
        "Connection": st.sampled_from(["close", "keep-alive", "upgrade"]),
        "Upgrade": st.sampled_from(["h2c", "websocket"]),
    }
    for name in draw(st.lists(st.sampled_from(sorted(games)), max_size=2, unique=True)):
        found.append((name, draw(games[name])))
    return found


def warped(draw, path):
    how = draw(st.integers(0, 9))
    at = draw(st.integers(0, len(path) - 1))
    return [
        path + "/",
        "/" + path,
        path.upper(),
        path.replace("/", "//", 1),
        path[:at] + "%2e%2e/" + path[at:],
        path[:at] + quote(path[at]).replace(path[at], f"%{ord(path[at]) % 256:02x}") + path[at + 1 :],
        path + "/../" + path,
        path[:at],
        path + ";x=1",
        path + "\u00e9",
    ][how]


QUERIES = ["state", "task", "job", "workload", "owner", "issuer", "template", "target", "kind", "expires_before"]
QUERIES += ["limit", "cursor", "from", "until", "lease", "type"]


@st.composite
def requests(draw, routes, seeds, hosts):
    """A request for one of the routes."""
    route = draw(st.sampled_from(routes))
    path = "/".join(one_of(draw, seeds.ids, "x") if part.startswith("{") else part for part in route["path"].split("/"))
    if draw(st.integers(0, 19)) == 0:
        path = warped(draw, path)
    method = route["verb"] if draw(st.integers(0, 9)) else draw(st.sampled_from(METHODS))
    query = ""
    if draw(st.integers(0, 3)) == 0:
        fields = [(draw(st.sampled_from(QUERIES)), draw(odd | st.sampled_from(["active", "jwt", "1", "500"])))]
        query = "?" + form_body(draw, mutated(draw, fields, seeds)).decode("utf-8", "replace")
        query = "".join(letter for letter in query if letter not in " \r\n\t\x00") if draw(st.integers(0, 3)) else query
    found = headers(draw, seeds, hosts[route["listener"]])
    body = b""
    if method == "POST" or draw(st.integers(0, 19)) == 0:
        if route["path"].startswith("/oauth2/"):
            fields = token_fields if route["path"] == "/oauth2/token" else asking_fields
            body, media_type = form_body(draw, mutated(draw, fields(draw, seeds), seeds)), FORM
        else:
            body, media_type = json_body(draw, seeds), "application/json"
        if draw(st.integers(0, 14)) == 0:
            body = body + b"A" * draw(st.sampled_from([1, 60_000, 66_000]))
        if draw(st.integers(0, 14)) == 0:
            media_type = draw(st.sampled_from(MEDIA_TYPES))
        found.append(("Content-Type", media_type))
        if draw(st.integers(0, 9)) == 0:
            found.append(("Transfer-Encoding", "chunked"))
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n" if body else b"0\r\n\r\n"
        else:
            found.append(("Content-Length", str(len(body))))
    return Request(route["listener"], method, path + query, found, body)
