"""Hostile requests: what a client may send, and everything near it.

A request is made for a route of the broker's own table from seeds that are worth something (tokens,
handles, evidence, ids), then mutated: parameters dropped, doubled, renamed, swapped; bytes flipped
and cut; types changed; things made huge, empty, deep, unicode; methods, media types, paths and
headers replaced. A route that this file does not know gets the same treatment.
"""

import json
import random
from dataclasses import dataclass, field
from urllib.parse import quote, quote_plus

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


LETTERS = "".join(map(chr, range(32, 127))) + "\x00\t\r\n\x7f\x80éßİı\u0301\u200b\u202e\ufeff\uffff😀"
ODD = ["", " ", "0", "-1", "1e999", "null", "true", "[]", "{}", "%00", "%", "%zz", "\x00", "\x7f", "é", "\u202e"]
ODD += ["' OR 1=1 --", "<script>", "../../etc/passwd", "${jndi:ldap://x}", "😀", "\ud83d", "9" * 40]
HUGE = ["A", "9", "%41", "[", "é"]


class Chance(random.Random):
    """Chance with a seed, so that what was sent can be sent again."""

    pick = random.Random.choice
    number = random.Random.randint

    def coin(self):
        return self.random() < 0.5

    def some(self, values, most):
        """At most so many of the values, each once."""
        values = list(values)
        return self.sample(values, self.number(0, min(most, len(values))))


def small(chance):
    return "".join(chance.choices(LETTERS, k=chance.number(0, 20)))


def odd(chance):
    how = chance.number(0, 5)
    if how <= 1:
        return small(chance)
    if how <= 3:
        return chance.pick(ODD)
    return chance.pick(HUGE) * 3000 if how == 4 else str(chance.number(-(1 << 70), 1 << 70))


def json_value(chance, depth=0):
    how = chance.number(0, 7 if depth < 4 else 5)
    if how == 6:
        return [json_value(chance, depth + 1) for _ in range(chance.number(0, 4))]
    if how == 7:
        return {small(chance): json_value(chance, depth + 1) for _ in range(chance.number(0, 4))}
    return [None, chance.coin(), chance.number(-(1 << 70), 1 << 70), chance.uniform(-1e300, 1e300), small(chance), ""][how]


def one_of(chance, values, otherwise=""):
    values = list(values)
    return chance.pick(values) if values else otherwise


def dented(chance, text):
    """A value that was right, with one thing wrong."""
    if not text:
        return odd(chance)
    at = chance.number(0, len(text) - 1)
    letter = chance.pick("AZaz09-_.=+/ \x00é")
    how = chance.number(0, 7)
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


def details(chance, seeds):
    template = one_of(chance, seeds.tasks)
    value = {"type": "dayfly_task", "template": template}
    for key in chance.some(["actions", "ttl", "ticket", "type", "locations", "extra"], 3):
        value[key] = chance.pick([["deploy:create"], chance.number(-5, 5000), json_value(chance)])
    how = chance.number(0, 4)
    text = json.dumps([value] * how if how else value, ensure_ascii=chance.coin())
    return dented(chance, text) if chance.number(0, 3) == 0 else text


def token_fields(chance, seeds):
    by_handle = chance.coin()
    subject = one_of(chance, seeds.handles if by_handle else seeds.evidence, "x")
    fields = [
        ("grant_type", EXCHANGE),
        ("subject_token_type", CONTROL if by_handle else JWT),
        ("subject_token", subject),
    ]
    if chance.coin():
        fields.append(("scope", one_of(chance, seeds.tasks)))
    else:
        fields.append(("authorization_details", details(chance, seeds)))
    extra = {
        "resource": chance.pick(seeds.audiences),
        "audience": chance.pick(seeds.audiences),
        "requested_token_type": chance.pick([CONTROL, JWT, "urn:ietf:params:oauth:token-type:access_token"]),
        "supersede": str(chance.number(-2, 70)),
        "task_control_s256": "".join(chance.choices("abcdefABCDEF0123_-", k=42)) + "A",
        "actor_token": small(chance),
    }
    for name in chance.some(extra, 2):
        fields.append((name, extra[name]))
    return fields


def asking_fields(chance, seeds):
    """Introspection and revocation: a token, perhaps with a client of its own."""
    pool = one_of(chance, [seeds.tokens, seeds.tokens, seeds.handles, seeds.evidence])
    fields = [("token", one_of(chance, pool, "x"))]
    if chance.coin():
        fields.append(("token_type_hint", chance.pick(["access_token", "refresh_token", "x"])))
    if chance.number(0, 3) == 0:
        fields.append(("client_assertion_type", ASSERTION))
        fields.append(("client_assertion", one_of(chance, seeds.evidence + seeds.tokens, "x")))
    return fields


def mutated(chance, fields, seeds):
    fields = list(fields)
    for _ in range(chance.pick([0, 0, 0, 1, 1, 2, 3])):
        if not fields:
            break
        at = chance.number(0, len(fields) - 1)
        name, value = fields[at]
        how = chance.number(0, 8)
        if how == 0:
            del fields[at]
        elif how == 1:
            fields.append(fields[at])
        elif how == 2:
            fields[at] = (dented(chance, name), value)
        elif how in (3, 4):
            fields[at] = (name, dented(chance, value))
        elif how == 5:
            fields[at] = (name, odd(chance))
        elif how == 6:
            other = chance.number(0, len(fields) - 1)
            fields[at], fields[other] = (name, fields[other][1]), (fields[other][0], value)
        elif how == 7:
            fields.append((small(chance), odd(chance)))
        else:
            fields[at] = (name, one_of(chance, seeds.subjects(), value))
    return fields


def form_body(chance, fields):
    escape = chance.pick([quote_plus] * 8 + [quote, lambda text, **_: text])
    pairs = [f"{escape(name, errors='surrogatepass')}={escape(value, errors='surrogatepass')}" for name, value in fields]
    return chance.pick(["&"] * 12 + ["&&", ";", "\n"]).join(pairs).encode("utf-8", "surrogatepass")


def json_body(chance, seeds):
    how = chance.number(0, 7)
    if how <= 2:
        known = {"reason": small(chance), "block": chance.coin()}
        keep = chance.some(known, 2)
        return json.dumps({name: known[name] for name in keep}).encode()
    if how == 3:
        return b'{"reason":"a","reason":"b"}'
    if how == 4:
        depth = chance.pick([15, 16, 17, 1000, 20000])
        return b'{"reason":' * depth + b"1" + b"}" * depth
    if how == 5:
        return b"\xef\xbb\xbf{}" if chance.coin() else chance.randbytes(chance.number(0, 60))
    if how == 6:
        return b'{"reason":"' + b"r" * chance.pick([300, 5000, 70_000]) + b'"}'
    return json.dumps(json_value(chance)).encode("utf-8", "surrogatepass")


def headers(chance, seeds, host):
    found = [("Host", host)]
    who = chance.number(0, 9)
    if who <= 2:
        found.append(("Authorization", "Bearer " + one_of(chance, seeds.operator)))
    elif who == 3:
        found.append(("Authorization", "Bearer " + one_of(chance, seeds.handles, "x")))
    elif who == 4:
        scheme = chance.pick(["Bearer", "bearer", "DPoP", "Basic", "Negotiate", "Bearer Bearer", ""])
        secret = one_of(chance, seeds.subjects() + seeds.operator, "x")
        found.append(("Authorization", f"{scheme} {dented(chance, secret) if chance.coin() else secret}"))
    elif who == 5:
        found += [("Authorization", "Bearer " + one_of(chance, seeds.subjects() + seeds.operator, "x"))] * 2
    games = {
        "DPoP": chance.pick(["x", "a.b.c", ""] + list(seeds.tokens)[:3]),
        "X-Request-Id": chance.pick(["mine-1", "a b", "x" * 129, "é", ""]),
        "traceparent": chance.pick(["00-" + "a" * 32 + "-" + "b" * 16 + "-01", "00-x", ""]),
        "Accept": chance.pick(["*/*", "text/html", "application/jwt", ""]),
        "Accept-Encoding": chance.pick(["gzip", "identity;q=0", "br"]),
        "If-None-Match": chance.pick(["*", 'W/"x"', '"']),
        "Forwarded": "for=127.0.0.1;host=x",
        "X-Forwarded-For": "127.0.0.1",
        "X-HTTP-Method-Override": chance.pick(["DELETE", "POST"]),
        "Cookie": chance.pick(["a=b", "x" * 5000]),
        "Origin": "https://evil.example",
        "Range": "bytes=0-1",
        "X-Many": "y" * 17_000,
        "Connection": chance.pick(["close", "keep-alive", "upgrade"]),
        "Upgrade": chance.pick(["h2c", "websocket"]),
    }
    for name in chance.some(games, 2) if chance.coin() else []:
        found.append((name, games[name]))
    return found


def warped(chance, path):
    how = chance.number(0, 9)
    at = chance.number(0, len(path) - 1)
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


def make(chance, routes, seeds, hosts):
    """A request for one of the routes."""
    # What changes something is asked more often.
    route = chance.choices(routes, [4 if route["verb"] == "POST" else 1 for route in routes])[0]
    path = "/".join(one_of(chance, seeds.ids, "x") if part.startswith("{") else part for part in route["path"].split("/"))
    if chance.number(0, 19) == 0:
        path = warped(chance, path)
    method = route["verb"] if chance.number(0, 9) else chance.pick(METHODS)
    query = ""
    if chance.number(0, 3) == 0:
        fields = [(chance.pick(QUERIES), odd(chance) if chance.coin() else chance.pick(["active", "jwt", "1", "500"]))]
        query = "?" + form_body(chance, mutated(chance, fields, seeds)).decode("utf-8", "replace")
        query = "".join(letter for letter in query if letter not in " \r\n\t\x00") if chance.number(0, 3) else query
    found = headers(chance, seeds, hosts[route["listener"]])
    body = b""
    if method == "POST" or chance.number(0, 19) == 0:
        if route["path"].startswith("/oauth2/"):
            fields = token_fields if route["path"] == "/oauth2/token" else asking_fields
            body, media_type = form_body(chance, mutated(chance, fields(chance, seeds), seeds)), FORM
        else:
            body, media_type = json_body(chance, seeds), "application/json"
        if chance.number(0, 14) == 0:
            body = body + b"A" * chance.pick([1, 60_000, 66_000])
        if chance.number(0, 14) == 0:
            media_type = chance.pick(MEDIA_TYPES)
        found.append(("Content-Type", media_type))
        if chance.number(0, 9) == 0:
            found.append(("Transfer-Encoding", "chunked"))
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n" if body else b"0\r\n\r\n"
        else:
            found.append(("Content-Length", str(len(body))))
    return Request(route["listener"], method, path + query, found, body)
