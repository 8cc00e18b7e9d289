"""Hostility: random, mutated and replayed requests at every route of a running broker, for a while.

Reads one JSON object from stdin: `routes` (verb, path, listener), `reasons` (code, status, oauth),
`broker`, `ca`, `ops`, `pid`, `program`, `state`, `claims`, `task`, `tasks`, `audiences`,
`operator_token_file`, `seconds`. Several threads attack, one starts and ends tasks, one is a good
client that must be served every second. What an answer may be is in `Oracle`.

Prints what it did as one JSON object; what must not be goes to stderr, a finding a line, and the
exit code is 1.
"""

import http.client
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from urllib.parse import parse_qsl, urlencode, urlsplit

from hostile_requests import CONTROL, EXCHANGE, FORM, JWT, Chance, Request, Seeds, make

ANSWER_MAX_S = 5
ATTACKERS = 4
WARM_UP = 0.3
POOL = 40
# Queues, the ledger's tree and the rows of what was really issued live in memory.
GROWTH_MAX_KB = 48 * 1024
# Readers of the store are opened when they are first needed.
FILES_MORE = 12


class Finding(AssertionError):
    """Something that must not be."""


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def head(self, name):
        return self.headers.get(name, "")

    def __repr__(self):
        return f"{self.status} {dict(self.headers)} {self.body[:600]!r}"


class Connection:
    """One way in. Opens anew when the broker has closed it, sends once."""

    def __init__(self, place):
        self.place, self.stream = place, None

    def open(self):
        host, port, tls = self.place
        raw = socket.create_connection((host, port), timeout=ANSWER_MAX_S)
        self.stream = tls.wrap_socket(raw, server_hostname=host) if tls else raw

    def close(self):
        if self.stream:
            self.stream.close()
        self.stream = None

    def ask(self, request):
        """The answer, on a fresh connection if a kept one was closed meanwhile."""
        kept = self.stream is not None
        try:
            return self.once(request)
        except TimeoutError:
            raise Finding(f"no answer within {ANSWER_MAX_S} s") from None
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not kept:
                raise Finding(f"no answer: {error!r}") from None
        try:
            return self.once(request)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Finding(f"no answer on a fresh connection: {error!r}") from None

    def once(self, request):
        if self.stream is None:
            self.open()
        try:
            self.stream.sendall(request.head() + request.body)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            pass  # Refused before all was read: the answer is there.
        reply = http.client.HTTPResponse(self.stream, method=request.method)
        reply.begin()
        answer = Answer(reply.status, reply.headers, reply.read())
        if reply.will_close:
            self.close()
        return answer


class Oracle:
    """What an answer may be."""

    def __init__(self, config):
        self.reasons = {row["code"]: row for row in config["reasons"]}
        # Every secret that was ever made here: unaltered, it may be served; echoed it may not be.
        self.worth = set()
        self.statuses, self.codes, self.routes = Counter(), Counter(), Counter()
        self.issued, self.opened = set(), set()
        self.slowest_s = 0.0
        self.lock = threading.Lock()

    def judge(self, request, answer, took_s):
        with self.lock:
            self.statuses[answer.status] += 1
            self.routes[route_of(request.path()) if answer.status != 404 else "none"] += 1
            self.slowest_s = max(self.slowest_s, took_s)
        if took_s > ANSWER_MAX_S:
            raise Finding(f"stalled for {took_s:.1f} s")
        self.no_echo(request, answer)
        if answer.status >= 400:
            self.refusal(request, answer)
        elif answer.status >= 300:
            if answer.status != 304 or not request.has("if-none-match"):
                raise Finding("a redirect, or a 304 nobody asked for")
        elif request.listener == "broker":
            self.granted(request, answer)

    def no_echo(self, request, answer):
        """A secret that was sent, in any part of the answer but its own id echoed by design."""
        told = answer.body.decode("utf-8", "replace") + "".join(
            f"{name}: {value}\n" for name, value in answer.headers.items() if name.lower() != "x-request-id"
        )
        for secret in list(self.worth):
            if secret.rpartition(".")[2][-40:] in told:
                raise Finding(f"a secret is echoed: `{secret[:12]}...`, near {near(told, secret[-20:])!r}")

    def refusal(self, request, answer):
        if request.listener == "ops" and request.path() == "/readyz" and answer.status == 503:
            return
        if request.method == "HEAD":
            if answer.body:
                raise Finding("HEAD has a body")
            return
        try:
            told = json.loads(answer.body)
        except ValueError:
            raise Finding("a refusal that is no JSON") from None
        code = told.get("reason")
        row = self.reasons.get(code)
        with self.lock:
            self.codes[code] += 1
        if row is None or row["status"] != answer.status:
            raise Finding(f"`{code}` does not go with {answer.status}")
        if answer.status >= 500 and (answer.status != 503 or answer.head("Retry-After") == ""):
            raise Finding("a 5xx that is not a 503 with Retry-After")
        if not told.get("request_id") or told["request_id"] != answer.head("X-Request-Id"):
            raise Finding("no request id")
        if answer.status == 401 and not answer.head("WWW-Authenticate"):
            raise Finding("401 without a challenge")
        if "no-store" not in answer.head("Cache-Control"):
            raise Finding("a refusal that may be cached")
        kind = answer.head("Content-Type")
        # What could not be parsed has no path, so it is told as a problem.
        unparsed = code in ("E-REQUEST", "E-HEADERS", "E-TIMEOUT", "E-TOO-LARGE") and "type" in told
        if request.path().startswith("/oauth2/") and not unparsed:
            oauth = {row["oauth"]} | ({"invalid_authorization_details"} if row["oauth"] == "invalid_scope" else set())
            if told.get("error") not in oauth or kind != "application/json" or "type" in told:
                raise Finding("not an OAuth error")
            text = told["error_description"]
            if any(not " " <= letter <= "~" or letter in '"\\' for letter in text):
                raise Finding("an error_description against RFC 6749")
        elif kind != "application/problem+json" or told.get("status") != answer.status or "title" not in told:
            raise Finding("not a problem")

    def granted(self, request, answer):
        """200 only for what was worth something, and unaltered."""
        path = request.path()
        shown = request.has("authorization")
        if path.startswith("/v1/") or path == "/oauth2/introspect":
            whole = [value.split(" ", 1)[-1].strip() for value in shown]
            asserted = b"client_assertion" in request.body
            if not asserted and (len(whole) != 1 or whole[0] not in self.worth):
                raise Finding("served without credentials")
            if answer.head("Cache-Control") != "no-store":
                raise Finding("an answer that may be cached")
        if path == "/oauth2/token" and request.method == "POST":
            body = request.body.decode("utf-8", "replace")
            if request.has("transfer-encoding"):
                body = body.split("\r\n", 1)[1].rsplit("\r\n0\r\n", 1)[0]
            sent = [value for name, value in parse_qsl(body, True) if name == "subject_token"]
            if len(sent) != 1 or sent[0] not in self.worth:
                raise Finding("issued for garbage")
            self.count(json.loads(answer.body))

    def count(self, told):
        with self.lock:
            self.opened.add(told["task_id"])
            if "lease_id" in told:
                self.issued.add(told["lease_id"])


def near(text, what):
    """Where it stands, without what stands there."""
    before, _, after = text.partition(what)
    return f"{before[-60:]} ... {after[:60]}"


def route_of(path):
    """The path with its ids taken out."""
    return "/".join("{id}" if part[:4] in ("tsk_", "lse_", "evt_") else part for part in path.split("/"))


class Siege:
    """All threads, what they share, and what they found."""

    def __init__(self, config):
        self.config = config
        self.seeds = Seeds(audiences=config["audiences"], tasks=config["tasks"])
        self.oracle = Oracle(config)
        tls = ssl.create_default_context(cafile=config["ca"])
        broker, ops = urlsplit(config["broker"]), urlsplit(config["ops"])
        self.places = {"broker": (broker.hostname, broker.port, tls), "ops": (ops.hostname, ops.port, None)}
        self.hosts = {"broker": broker.netloc, "ops": ops.netloc}
        self.findings, self.raw, self.good, self.live = [], Counter(), [], []
        with open(config["claims"]) as file:
            self.claims = json.load(file)
        self.ends_at, self.seed = float("inf"), config.get("seed", random.randrange(1 << 32))

    def over(self):
        return time.monotonic() >= self.ends_at or len(self.findings) >= 10

    def ask(self, connection, request):
        began = time.monotonic()
        answer = connection.ask(request)
        self.oracle.judge(request, answer, time.monotonic() - began)
        return answer

    def form(self, path, fields, bearer=None):
        body = urlencode(fields).encode()
        found = [("Host", self.hosts["broker"]), ("Content-Type", FORM), ("Content-Length", str(len(body)))]
        return Request("broker", "POST", path, found + ([("Authorization", f"Bearer {bearer}")] if bearer else []), body)

    def get(self, path, bearer):
        found = [("Host", self.hosts["broker"]), ("Authorization", f"Bearer {bearer}")]
        return Request("broker", "GET", path, found, b"")

    def guarded(self, name, work):
        def run():
            try:
                work()
            except Exception as error:  # noqa: BLE001 - every end of a thread is told
                self.findings.append(f"{name}: {''.join(traceback.format_exception_only(error)).strip()[:4000]}")

        return threading.Thread(target=run, name=name)

    # The four kinds of threads.

    def attack(self):
        """Requests near what is right, and again requests of before."""
        chance = self.chance()
        connections = {name: Connection(place) for name, place in self.places.items()}
        sent = []
        while not self.over():
            again = sent and chance.random() < 0.1
            request = chance.pick(sent) if again else make(chance, self.config["routes"], self.seeds, self.hosts)
            answer = None
            try:
                began = time.monotonic()
                answer = connections[request.listener].ask(request)
                self.oracle.judge(request, answer, time.monotonic() - began)
            except Finding as finding:
                self.findings.append(f"{finding}\n  {request!r}\n  {answer!r}")
                connections[request.listener].close()
            self.keep(sent, request)

    def chance(self):
        """Threads differ; what the requests are made of differs with each run anyhow."""
        return Chance(f"{self.seed} {threading.current_thread().name}")

    def batter(self):
        """Bytes that are no whole request, more than one request, or not HTTP at all."""
        chance = self.chance()
        while not self.over():
            listener = chance.choice(["broker", "broker", "ops"])
            host, port, tls = self.places[listener]
            name, payload = self.garbage(chance, self.hosts[listener])
            told = b""
            with socket.create_connection((host, port), timeout=ANSWER_MAX_S) as raw:
                try:
                    stream = tls.wrap_socket(raw, server_hostname=host) if tls and name != "no TLS" else raw
                    stream.sendall(payload)
                    stream.settimeout(0.3)
                    while chunk := stream.recv(65536):
                        told += chunk
                except OSError:
                    pass
                self.judge_raw(name, payload, told)
            self.raw[name] += 1

    def garbage(self, chance, host):
        get = f"GET /oauth2/jwks HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        post = f"POST /oauth2/token HTTP/1.1\r\nHost: {host}\r\nContent-Type: {FORM}\r\n".encode()
        cut = chance.randrange(len(post))
        kinds = {
            "noise": chance.randbytes(chance.randrange(1, 4000)),
            "no TLS": get,
            "pipelined": get * chance.randrange(2, 40),
            "half a head": post[:cut],
            "half a body": post + b"Content-Length: 900\r\n\r\ngrant_type=",
            "two lengths": post + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\na=bc" + get,
            "length and chunks": post + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get,
            "odd chunks": post + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            "chunk of a lie": post + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\na\r\n",
            "bare line feeds": get.replace(b"\r\n", b"\n"),
            "a folded header": get[:-2] + b"X-A: b\r\n c\r\n\r\n",
            "no host": b"GET /oauth2/jwks HTTP/1.1\r\n\r\n",
            "two hosts": get[:-2] + b"Host: other\r\n\r\n",
            "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + chance.randbytes(30),
            "HTTP/1.0": get.replace(b"1.1", b"1.0"),
            "HTTP/9": get.replace(b"1.1", b"9.9"),
            "a whole URL": get.replace(b"/oauth2", b"https://evil.example/oauth2"),
            "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            "a long line": b"GET /" + b"a" * chance.choice([16_000, 70_000]) + b" HTTP/1.1\r\n\r\n",
            "many headers": get[:-2] + b"".join(b"X-%d: y\r\n" % number for number in range(150)) + b"\r\n",
            "a name with a space": get[:-2] + b"X Y: z\r\n\r\n",
            "expect": post + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\na=b",
            "a flipped byte": bytearray(get * 3),
        }
        name = chance.choice(sorted(kinds))
        payload = kinds[name]
        if name == "a flipped byte":
            payload[chance.randrange(len(payload))] ^= 1 << chance.randrange(8)
        return name, bytes(payload)

    def judge_raw(self, name, payload, told):
        for head in told.split(b"HTTP/1.1 ")[1:]:
            status = head[:3]
            if status.startswith(b"5") and status != b"503":
                self.findings.append(f"raw, {name}: {status!r} for {payload[:300]!r}: {told[:600]!r}")
            if status[:1] in b"45" and b'"reason"' not in head:
                self.findings.append(f"raw, {name}: no reason for {payload[:300]!r}: {told[:600]!r}")

    def move(self):
        """Starts tasks, feeds them, ends them: what attackers present is alive, ended, or overtaken."""
        connection, chance = Connection(self.places["broker"]), self.chance()
        while not self.over():
            fresh = self.evidence()
            fields = [("grant_type", EXCHANGE), ("subject_token_type", JWT), ("subject_token", fresh)]
            # Some evidence is left for the attackers to use up.
            self.keep(self.seeds.evidence, fresh)
            if chance.random() < 0.7:
                told = self.ask(connection, self.form("/oauth2/token", fields + [("scope", self.config["task"])]))
                if told.status == 200:
                    self.remember(json.loads(told.body))
            if self.seeds.handles and chance.random() < 0.5:
                task, handle = chance.choice(self.live)
                self.ask(connection, self.json(f"/v1/tasks/{task}/end", handle))
            self.refresh_operator()

    def json(self, path, bearer):
        found = [("Host", self.hosts["broker"]), ("Authorization", f"Bearer {bearer}")]
        found += [("Content-Type", "application/json"), ("Content-Length", "2")]
        return Request("broker", "POST", path, found, b"{}")

    def remember(self, told):
        self.keep(self.seeds.tokens, told["access_token"])
        self.keep(self.seeds.ids, told["task_id"])
        self.keep(self.seeds.ids, told["lease_id"])
        if told.get("task_control"):
            self.keep(self.seeds.handles, told["task_control"])
            self.keep(self.live, (told["task_id"], told["task_control"]))

    def keep(self, pool, value):
        self.oracle.worth |= {value} if isinstance(value, str) and value[:4] not in ("tsk_", "lse_") else set()
        pool.append(value)
        if len(pool) > POOL:
            pool.pop(0)

    def evidence(self):
        """A token of the platform, of a run of its own: an operator's end blocks the whole run."""
        name = f"{threading.current_thread().name}.claims"
        with open(name, "w") as file:
            json.dump({**self.claims, "run_id": str(random.randrange(1 << 40))}, file)
        made = [self.config["program"], "dev", "token", "--state", self.config["state"], "--claims", name]
        token = subprocess.run(made, check=True, capture_output=True, text=True).stdout.strip()
        self.oracle.worth.add(token)
        return token

    def refresh_operator(self):
        with open(self.config["operator_token_file"]) as file:
            token = file.read().strip()
        if token not in self.seeds.operator:
            self.seeds.operator.append(token)
            self.oracle.worth.add(token)

    def be_good(self):
        """A client with honest needs: each second a token that works and an older one that does not."""
        connection = Connection(self.places["broker"])
        fields = [("grant_type", EXCHANGE), ("subject_token_type", JWT), ("subject_token", self.evidence())]
        first = self.ask(connection, self.form("/oauth2/token", fields + [("scope", self.config["task"])]))
        if first.status != 200:
            raise Finding(f"a good client is refused: {first!r}")
        told = json.loads(first.body)
        handle, older = told["task_control"], told["access_token"]
        renew = [("grant_type", EXCHANGE), ("subject_token_type", CONTROL), ("subject_token", handle), ("supersede", "0")]
        self.oracle.worth |= {handle, older}
        while not self.over():
            began = time.monotonic()
            answer = self.ask(connection, self.form("/oauth2/token", renew))
            if answer.status != 200:
                raise Finding(f"a good client is refused: {answer!r}")
            newer = json.loads(answer.body)["access_token"]
            if not self.active(connection, newer) or self.active(connection, older):
                raise Finding("a good client's token is not what it should be")
            self.oracle.worth.add(older := newer)
            self.good.append(time.monotonic() - began)
            while time.monotonic() < began + 1 and not self.over():
                time.sleep(0.05)

    def active(self, connection, token):
        request = self.form("/oauth2/introspect", [("token", token)], self.seeds.operator[-1])
        return json.loads(self.ask(connection, request).body)["active"]

    # Around them.

    def prepare(self):
        self.refresh_operator()
        while len(self.live) < 3:
            fresh = self.evidence()
            fields = [("grant_type", EXCHANGE), ("subject_token_type", JWT), ("subject_token", fresh)]
            told = self.ask(
                Connection(self.places["broker"]), self.form("/oauth2/token", fields + [("scope", self.config["task"])])
            )
            self.remember(json.loads(told.body))
            self.keep(self.seeds.evidence, fresh)
        self.known = self.leases() - self.oracle.issued

    def leases(self):
        """Every lease the broker knows."""
        found, cursor, connection = set(), "", Connection(self.places["broker"])
        while True:
            answer = self.ask(connection, self.get(f"/v1/leases?limit=500{cursor}", self.seeds.operator[-1]))
            page = json.loads(answer.body)
            found |= {lease["id"] for lease in page["items"]}
            if not page.get("next_cursor"):
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def rss_kb(self):
        with open(f"/proc/{self.config['pid']}/status") as file:
            return int(next(line for line in file if line.startswith("VmRSS")).split()[1])

    def open_files(self):
        return len(os.listdir(f"/proc/{self.config['pid']}/fd"))

    def run(self):
        self.prepare()
        files = self.open_files()
        self.ends_at = time.monotonic() + self.config["seconds"]
        work = [(f"attacker {number}", self.attack) for number in range(ATTACKERS)]
        work += [("raw", self.batter), ("mover", self.move), ("good client", self.be_good)]
        threads = [self.guarded(name, do) for name, do in work]
        for thread in threads:
            thread.start()
        while time.monotonic() < self.ends_at - (1 - WARM_UP) * self.config["seconds"]:
            time.sleep(0.1)
        warm_kb = self.rss_kb()
        for thread in threads:
            thread.join()
        grown_kb = self.rss_kb() - warm_kb
        return self.report(files, warm_kb, grown_kb)

    def report(self, files, warm_kb, grown_kb):
        if grown_kb > GROWTH_MAX_KB:
            self.findings.append(f"grew by {grown_kb} kB")
        beyond = self.leases() - self.known
        if beyond != self.oracle.issued:
            self.findings.append(
                f"leases nobody was answered: {beyond - self.oracle.issued}, unknown: {self.oracle.issued - beyond}"
            )
        ends = time.monotonic() + 10
        while (open_files := self.open_files()) > files + FILES_MORE and time.monotonic() < ends:
            time.sleep(0.1)
        if open_files > files + FILES_MORE:
            self.findings.append(f"{open_files} open files, {files} before")
        if len(self.good) < self.config["seconds"] / 3:
            self.findings.append(f"the good client was served only {len(self.good)} times")
        oracle = self.oracle
        return {
            "answers": sum(oracle.statuses.values()),
            "raw": sum(self.raw.values()),
            "statuses": dict(sorted(oracle.statuses.items())),
            "reasons": dict(oracle.codes.most_common()),
            "routes": dict(oracle.routes.most_common(40)),
            "issued": len(oracle.issued),
            "opened": len(oracle.opened),
            "slowest_s": round(oracle.slowest_s, 3),
            "good": {"served": len(self.good), "slowest_s": round(max(self.good, default=0), 3)},
            "rss_kb": {"warm": warm_kb, "grown": grown_kb},
            "open_files": {"before": files, "after": open_files},
            "seed": self.seed,
            "findings": len(self.findings),
        }


def main():
    siege = Siege(json.load(sys.stdin))
    print(json.dumps(siege.run()))
    for finding in siege.findings:
        print(f"finding: {finding}", file=sys.stderr)
    return 1 if siege.findings else 0


if __name__ == "__main__":
    sys.exit(main())
