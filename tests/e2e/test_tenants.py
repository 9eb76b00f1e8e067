# SPDX-License-Identifier: Apache-2.0
"""Keys, scopes, tenants, limits and the record of changes, on a running server.

The routes are read from the table in server/routes.c: a new one is tested without being added here.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import re
import signal
import sqlite3
import time

import httpx
import pytest
from harness import ROOT, TINY, Server, adapter_bytes, error_of, golden, run_cli

pytestmark = pytest.mark.sanitizer

OPEN = {"/health", "/ready", "/version"}
ROW = re.compile(r'\{"(\w+)",\s*"([^"]+)",\s*(NULL|"[^"]*"),\s*\w+,\s*\w+,\s*([\w| ]+)[,}]')
PROMPT = list(range(3, 40))


def routes():
    """(method, path, has a name, scopes) of every row of the table."""
    table = (ROOT / "server" / "routes.c").read_text("utf-8")
    table = table.split("routes[] = {")[1].split("};")[0]
    found = ROW.findall(table)
    assert len(found) == len(re.findall(r'^\s*\{"', table, re.M)) > 15, found
    for method, path, suffix, scopes in found:
        named = suffix != "NULL"
        yield method, path + ("{name}" + suffix.strip('"') if named else ""), named, scopes


def make_key(store, *options):
    """(id, headers) of a new key."""
    run = run_cli("keys", "make", "--store", store, "--json", *options, check=0)
    made = json.loads(run.stdout)
    assert re.fullmatch(r"sora-[A-Za-z0-9_-]{43}", made["key"]), made
    return made["id"], {"authorization": f"Bearer {made['key']}"}


def eventually(check, seconds=3):
    """Until check() holds: changes of keys are taken up within a second."""
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A server with two tenants, a key for each scope of the first, and an admin."""
    store = tmp_path_factory.mktemp("tenants") / "store"
    keys = {
        "a": make_key(store, "--scope", "infer,adapters", "--tenant", "acme", "--name", "ann"),
        "b": make_key(store, "--scope=infer", "--scope", "adapters", "--tenant", "bolt"),
        "infer": make_key(store, "--scope", "infer", "--tenant", "acme"),
        "adapters": make_key(store, "--scope", "adapters", "--tenant", "acme"),
        "admin": make_key(store, "--scope", "admin"),
        "held": make_key(store, "--tenant", "acme", "--adapters", "other,named"),
    }
    config = golden("tiny", "llama", "config.json")
    shared = store.parent / "shared.safetensors"
    shared.write_bytes(adapter_bytes(config, 1))
    options = ("--model-name", "tiny", "--adapter", f"shared={shared}", "--log-level", "debug",
               "--adapter-root", store.parent)  # fmt: skip
    with Server(TINY / "llama", store, *options) as server:
        server.name, server.config, server.keys = "tiny", config, keys
        server.as_ = {who: headers for who, (_, headers) in keys.items()}
        yield server
        log = server.log()
        for _, headers in keys.values():
            assert headers["authorization"].split("-", 1)[1] not in log


def call(server, who, method, path, **options):
    headers = {**(server.as_[who] if who else {}), **options.pop("headers", {})}
    return server.http.request(method, path, headers=headers, **options)


def upload(server, who, name, seed, expect=(200, 201)):
    data = adapter_bytes(server.config, seed)
    headers = {"content-type": "application/octet-stream"}
    reply = call(server, who, "PUT", f"/v1/adapters/{name}", content=data, headers=headers)
    assert reply.status_code in expect, f"{reply.status_code}: {reply.text}"
    return reply


def complete(server, who, model, **fields):
    body = {
        "model": model, "prompt": PROMPT, "max_tokens": 4, "temperature": 0, "ignore_eos": True,
        "return_token_ids": True, **fields,
    }  # fmt: skip
    return call(server, who, "POST", "/v1/completions", json=body)


def tokens(server, who, model):
    reply = complete(server, who, model)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["token_ids"]


# ---- keys and scopes


def test_every_route_wants_a_key(world):
    for method, path, _, scopes in routes():
        bare = path.format(name="shared")
        for headers in ({}, {"authorization": "Bearer sora-wrong"}, {"authorization": "Basic eDp5"},
                        {"x-api-key": "sora-wrong"}, {"authorization": "Bearer"}):  # fmt: skip
            reply = world.http.request(method, bare, headers=headers)
            if path in OPEN:
                assert scopes.strip() == "OPEN" and reply.status_code == 200, (path, reply.text)
                continue
            error_of(reply, 401)
            assert reply.headers["www-authenticate"] == "Bearer", path


def test_what_is_no_route_wants_a_key_too(world):
    error_of(world.http.get("/v1/nothing"), 401)
    error_of(world.http.post("/metrics"), 401)
    error_of(call(world, "a", "GET", "/v1/nothing"), 404, "route_not_found")


def test_every_route_holds_to_its_scopes(world):
    has = {"infer": {"INFER"}, "adapters": {"ADAPTERS"}, "admin": {"INFER", "ADAPTERS", "ADMIN"}}
    for method, path, _, scopes in routes():
        wanted = {s.strip() for s in scopes.split("|")}
        for who, own in has.items():
            reply = call(world, who, method, path.format(name="nobody"))
            if wanted & (own | {"OPEN"}):
                assert reply.status_code not in (401, 403), (method, path, who, reply.text)
            else:
                error = error_of(reply, 403, "insufficient_permissions")
                assert all(w.lower() in error["message"] for w in wanted), error


def test_a_key_comes_in_either_header(world):
    text = world.as_["a"]["authorization"].split(" ")[1]
    for headers in ({"x-api-key": text}, {"authorization": f"bearer {text}"}):
        assert world.http.get("/v1/models", headers=headers).status_code == 200


def test_a_key_that_is_made_or_revoked_counts_within_a_second(world):
    key_id, headers = make_key(world.store, "--tenant", "late")

    def code():
        return world.http.get("/v1/models", headers=headers).status_code

    eventually(lambda: code() == 200, 1)
    run_cli("keys", "revoke", key_id, "--store", world.store, check=0)
    eventually(lambda: code() == 401, 1)
    listed = json.loads(run_cli("keys", "list", "--json", "--store", world.store, check=0).stdout)
    mine = [k for k in listed["keys"] if k["id"] == key_id]
    assert len(mine) == 1 and mine[0]["revoked"] and "key" not in mine[0] and "hash" not in mine[0]


def test_no_request_reads_the_catalog_and_losing_it_locks_nobody_out(tmp_path):
    """Its tables are taken away while the server runs: keys and limits hold as they were."""
    store = tmp_path / "store"
    _, headers = make_key(store, "--scope", "infer", "--tenant", "t")
    tables = ("api_key", "tenant_limits", "access_stamp")

    def rename(suffix_from, suffix_to):
        with contextlib.closing(sqlite3.connect(store / "catalog.sqlite", timeout=30)) as db:
            for table in tables:
                db.execute(f"ALTER TABLE {table}{suffix_from} RENAME TO {table}{suffix_to}")

    with Server(TINY / "llama", store, "--model-name", "tiny") as server:
        body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 1}
        rename("", "_away")
        eventually(lambda: "reload_failed" in server.log())
        for _ in range(100):
            assert server.post("/v1/completions", body, headers=headers).status_code == 200
            error_of(server.post("/v1/completions", body), 401)
            error_of(server.http.get("/metrics", headers=headers), 403)
        assert server.log().count("reload_failed") == 1, "said once"
        rename("_away", "")
        _, late = make_key(store, "--tenant", "t")
        eventually(lambda: server.http.get("/v1/models", headers=late).status_code == 200)


def test_a_server_without_keys_is_open_until_the_first_one(tmp_path):
    with Server(TINY / "llama", tmp_path / "store", "--model-name", "tiny") as server:
        assert "there are no API keys" in server.log()
        assert server.http.get("/v1/models").status_code == 200
        assert server.http.get("/v1/models", headers={"authorization": "Bearer any"}).is_success
        key_id, headers = make_key(tmp_path / "store", "--scope", "admin")
        eventually(lambda: server.http.get("/v1/models").status_code == 401, 1)
        assert server.http.get("/metrics", headers=headers).status_code == 200
        run_cli("keys", "revoke", key_id, "--store", tmp_path / "store", check=0)
        eventually(lambda: server.http.get("/metrics", headers=headers).status_code == 401, 1)
        assert server.http.get("/v1/models").status_code == 401, "it must not be open again"


def test_an_open_server_on_the_network_says_so(tmp_path):
    with Server(TINY / "llama", tmp_path / "store", "--host", "0.0.0.0") as server:
        assert "level=warn" in server.log() and "OPEN_TO_THE_NETWORK" in server.log()


def test_keys_come_from_a_file_that_is_read_anew(tmp_path):
    path = tmp_path / "keys.txt"
    first, second, boss = "first-key-of-the-file", "second-key-of-the-file", "the-operators-own-key"
    path.write_text(f"# ours\n{first}\n{boss}  -  admin\n")
    options = ("--api-key-file", path, "--model-name", "tiny")
    with Server(TINY / "llama", tmp_path / "store", *options) as server:

        def code(key, url="/v1/models"):
            return server.http.get(url, headers={"authorization": f"Bearer {key}"}).status_code

        assert (code(first), code(second), code(boss)) == (200, 401, 200)
        assert (code(first, "/metrics"), code(boss, "/metrics")) == (403, 200)
        path.write_text(f"{second} acme infer\n")
        eventually(lambda: code(second) == 200)
        assert (code(first), code(boss), code(second, "/metrics")) == (401, 401, 403)
        path.write_text("short\n")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "reload_failed" in server.log())
        assert code(second) == 200, "what stood before stays"
        for key in (first, second, boss, "short"):
            assert f"{key} " not in server.log() and f'{key}"' not in server.log()
    path.write_text("short\n")
    run = run_cli("serve", "--model", TINY / "llama", "--store", tmp_path / "store", *options)
    assert run.returncode == 1 and "line 1" in run.stderr and "short" not in run.stderr


# ---- tenants


def test_two_tenants_use_one_name_and_neither_learns_of_the_other(world):
    first = upload(world, "a", "support", 2, (201,)).json()
    second = upload(world, "b", "support", 3, (201,)).json()
    assert first["name"] == second["name"] == "support"
    assert (first["tenant"], second["tenant"]) == ("acme", "bolt")
    assert first["version"] == second["version"] == 1 and first["digest"] != second["digest"]
    mine, theirs = tokens(world, "a", "support"), tokens(world, "b", "support")
    assert mine != theirs and mine == tokens(world, "a", "support@1")
    assert mine == tokens(world, "admin", "acme~support")
    upload(world, "a", "support", 4)
    assert tokens(world, "b", "support") == theirs
    assert tokens(world, "a", "support@1") == mine
    assert complete(world, "b", "support@2").status_code == 404
    for who, other in (("a", second), ("b", first)):
        for path in ("/v1/models", "/v1/adapters", "/v1/adapters/support/versions"):
            assert other["digest"] not in call(world, who, "GET", path).text, (who, path)
    assert call(world, "a", "DELETE", "/v1/adapters/support").status_code == 200
    assert tokens(world, "b", "support") == theirs
    assert call(world, "b", "DELETE", "/v1/models/support").json()["deleted"]


def without(name, reply):
    """A reply as it would read for any name, and what may differ between two calls."""
    text = reply.text.replace(name, "NAME")
    headers = {k: v for k, v in reply.headers.items() if k not in ("x-request-id", "date")}
    headers.pop("content-length", None)  # counts the bytes of the name
    return reply.status_code, text, headers


def test_another_tenants_adapter_is_as_one_that_is_not_there(world):
    """On every route that takes a name: the same answer as for a name that nobody has."""
    secret = upload(world, "b", "secret", 5, (201,)).json()
    before = call(world, "admin", "GET", "/v1/adapters/bolt~secret").json()
    data = adapter_bytes(world.config, 6)
    bodies = [{}, {"json": {"version": 1}}, {"json": {"pinned": True}}]
    for method, path, named, scopes in routes():
        # A route of the admin's alone says so, with the path as sent, before it reads the name.
        admins = scopes == "ADMIN"
        for name in ("secret", "bolt~secret", "bolt%7Esecret", "secret@1", "bolt~secret@1"):
            if not named or method == "PUT":
                continue
            for body in bodies:
                found = call(world, "a", method, path.format(name=name), **body)
                plain = name.replace("%7E", "~").replace("secret", "absent").replace("bolt", "none")
                absent = call(world, "a", method, path.format(name=plain), **body)
                assert found.status_code in ((403,) if admins else (404, 405)), (path, found.text)
                shown = name if admins else name.replace("%7E", "~")
                assert without(shown, found) == without(plain, absent), (method, path, name)
    bodies = [
        {"prompt": PROMPT}, {"messages": [{"role": "user", "content": "x"}]}, {"tokens": PROMPT},
        {"prompt": PROMPT, "adapters": [{"name": "NAME"}]},
    ]  # fmt: skip
    for body in bodies:
        for url in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
            seen = []
            for name in ("secret", "absent", "bolt~secret", "none~absent"):
                sent = json.loads(json.dumps({"model": name, **body}).replace("NAME", name))
                if "adapters" in body:
                    sent["model"] = "tiny"
                reply = call(world, "a", "POST", url, json=sent)
                assert not reply.is_success, (url, reply.text)
                seen.append(without(name, reply))
            assert seen[0] == seen[1] and seen[2] == seen[3], url
    for path in ("/v1/models", "/v1/adapters"):
        for name in ("secret", "bolt", secret["digest"]):
            assert name not in call(world, "a", "GET", path).text
    # Writing that name is writing one's own.
    assert upload(world, "a", "secret", 6, (201,)).json()["tenant"] == "acme"
    assert call(world, "a", "DELETE", "/v1/adapters/secret").status_code == 200
    for name in ("bolt~secret", "bolt%7Esecret"):
        reply = call(world, "a", "PUT", f"/v1/adapters/{name}", content=data)
        assert error_of(reply, 400)["message"].count("~") >= 1
    form = {"config": ("c", b"{}"), "weights": ("w", b"x"), "name": (None, b"bolt~secret")}
    error_of(call(world, "a", "POST", "/v1/adapters", files=form), 400)
    after = call(world, "admin", "GET", "/v1/adapters/bolt~secret").json()
    for key in ("digest", "version", "versions", "active", "requests", "in_flight", "last_used"):
        assert before[key] == after[key], key
    call(world, "b", "DELETE", "/v1/adapters/secret")


def test_the_same_file_in_two_tenants_tells_neither(world):
    """Files are kept once; what a tenant is told about its own must not depend on another's."""
    alone = upload(world, "a", "alone", 7, (201,)).json()
    freed_alone = call(world, "a", "DELETE", "/v1/adapters/alone").json()["freed_bytes"]
    assert freed_alone == alone["bytes"]
    upload(world, "b", "same", 8)
    tokens(world, "b", "same")
    data = adapter_bytes(world.config, 8)
    reply = call(world, "a", "PUT", "/v1/adapters/mine?activate=false", content=data)
    card = reply.json()
    assert reply.status_code == 201 and card["state"] == "on_disk" and card["load_ms"] == 0
    assert card["requests"] == 0 and card["version"] == 1
    freed = call(world, "a", "DELETE", "/v1/adapters/mine").json()["freed_bytes"]
    assert freed == card["bytes"]
    assert tokens(world, "b", "same")
    call(world, "b", "DELETE", "/v1/adapters/same")


def test_shared_adapters_are_used_by_all_and_changed_by_admins(world):
    assert tokens(world, "a", "shared") == tokens(world, "b", "shared")
    for who in ("a", "b"):
        listed = {m["id"] for m in call(world, who, "GET", "/v1/models").json()["data"]}
        assert {"tiny", "shared"} <= listed
        card = call(world, who, "GET", "/v1/adapters/shared").json()
        assert card["tenant"] is None and card["requests"] == card["tokens"] == 0, "others' use"
        assert call(world, "admin", "GET", "/v1/adapters/shared").json()["requests"] > 0
        for method, path, options in (
            ("DELETE", "/v1/adapters/shared", {}),
            ("DELETE", "/v1/models/shared", {}),
            ("POST", "/v1/adapters/shared/rollback", {"json": {"version": 1}}),
            ("PUT", "/v1/adapters/shared", {"content": adapter_bytes(world.config, 9)}),
        ):
            error_of(call(world, who, method, path, **options), 403, "shared_adapter")
    assert upload(world, "admin", "everyones", 9, (201,)).json()["tenant"] is None
    assert tokens(world, "a", "everyones") == tokens(world, "b", "everyones")
    assert call(world, "admin", "DELETE", "/v1/adapters/everyones").is_success


def test_an_admin_reaches_every_tenants_adapters(world):
    upload(world, "a", "reach", 10, (201,))
    upload(world, "b", "reach", 11, (201,))
    listed = {c["name"] for c in call(world, "admin", "GET", "/v1/adapters").json()["data"]}
    assert {"acme~reach", "bolt~reach", "shared"} <= listed
    assert tokens(world, "admin", "acme~reach") == tokens(world, "a", "reach")
    assert upload(world, "admin", "acme~reach", 12).json()["version"] == 2
    assert call(world, "a", "GET", "/v1/adapters/reach").json()["version"] == 2
    metrics = call(world, "admin", "GET", "/metrics").text
    assert 'adapter="bolt~reach"' in metrics
    for name in ("acme~reach", "bolt~reach"):
        assert call(world, "admin", "DELETE", f"/v1/adapters/{name}").is_success
    error_of(call(world, "a", "GET", "/v1/adapters/reach"), 404)


def test_a_key_held_to_some_adapters_knows_no_others(world):
    for name in ("named", "hidden"):
        upload(world, "a", name, 13)
    listed = {m["id"] for m in call(world, "held", "GET", "/v1/models").json()["data"]}
    assert listed == {"tiny", "named"}
    assert tokens(world, "held", "named") and tokens(world, "held", "tiny")
    for name in ("hidden", "shared"):
        error_of(complete(world, "held", name), 404, "model_not_found")
    for name in ("named", "hidden"):
        call(world, "a", "DELETE", f"/v1/adapters/{name}")


def test_errors_name_adapters_as_the_tenant_does(world):
    reply = call(world, "a", "PUT", "/v1/adapters/broken", content=b"not an adapter at all")
    message = error_of(reply, 422)["message"]
    assert '"broken"' in message and "acme" not in message
    reply = call(world, "a", "PUT", "/v1/adapters/tiny", content=adapter_bytes(world.config, 2))
    assert "base" in error_of(reply, 400)["message"]


def test_the_prefix_cache_is_a_tenants_own(world):
    prompt = [7 + i % 50 for i in range(80)]

    def cached(who):
        usage = complete(world, who, "tiny", prompt=prompt).json()["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    assert cached("a") == 0
    assert cached("a") >= 64 and cached("infer") >= 64, "one tenant, two keys"
    assert cached("b") == 0
    assert cached("b") >= 64


# ---- limits


def limit(server, tenant, *options):
    run_cli("keys", "limit", "--tenant", tenant, "--store", server.store, *options, check=0)
    time.sleep(0.8)


def refused(reply):
    error = error_of(reply, 429, "rate_limit_exceeded")
    assert error["type"] == "rate_limit_error"
    return int(reply.headers["retry-after"])


def test_requests_per_minute(world):
    who = world.as_["slow"] = make_key(world.store, "--tenant", "slow")[1]
    limit(world, "slow", "--requests-per-minute", 60)
    replies = [world.http.get("/v1/models", headers=who) for _ in range(70)]
    late = [r for r in replies if r.status_code == 429]
    assert 60 <= sum(r.is_success for r in replies) < 65 and late
    wait = refused(late[-1])
    assert wait == 1
    time.sleep(wait)
    assert world.http.get("/v1/models", headers=who).is_success
    assert call(world, "a", "GET", "/v1/models").is_success, "others are not held up"
    limit(world, "slow", "--requests-per-minute", 0)
    assert all(world.http.get("/v1/models", headers=who).is_success for _ in range(20))


def test_tokens_per_minute(world):
    world.as_["spender"] = make_key(world.store, "--tenant", "spender")[1]
    limit(world, "spender", "--tokens-per-minute", 100)
    spent = 0
    while (reply := complete(world, "spender", "tiny", max_tokens=8)).is_success:
        spent += reply.json()["usage"]["total_tokens"]
        assert spent < 200
    assert spent >= 45
    assert 1 <= refused(reply) <= 60
    assert world.http.get("/v1/models", headers=world.as_["spender"]).is_success
    limit(world, "spender", "--tokens-per-minute", 0)
    assert complete(world, "spender", "tiny").is_success


def test_concurrent_requests(world):
    world.as_["narrow"] = make_key(world.store, "--tenant", "narrow")[1]
    limit(world, "narrow", "--concurrent-requests", 2)

    def long_one(_):
        with httpx.Client(base_url=world.url, timeout=60, headers=world.as_["narrow"]) as http:
            body = {"model": "tiny", "prompt": PROMPT, "max_tokens": 150, "ignore_eos": True}
            return http.post("/v1/completions", json=body)

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(long_one, range(36)))
    good = [r for r in replies if r.is_success]
    bad = [r for r in replies if not r.is_success]
    assert len(good) >= 2 and bad
    assert {refused(r) for r in bad} == {1}
    assert complete(world, "narrow", "tiny").is_success, "what ended counts no more"


def test_stored_bytes(world):
    data = adapter_bytes(world.config, 20)
    options = ("--scope", "adapters,infer", "--tenant", "small")
    world.as_["small"] = make_key(world.store, *options)[1]
    limit(world, "small", "--stored-bytes", len(data) * 3 // 2)
    for name in ("one", "again"):  # the same bytes take no room
        reply = call(world, "small", "PUT", f"/v1/adapters/{name}", content=data)
        assert reply.status_code == 201, reply.text
    reply = upload(world, "small", "two", 21, (429,))
    message = error_of(reply, 429, "storage_limit_exceeded")["message"]
    numbers = {int(n) for n in re.findall(r"\d+", message)}
    assert {len(data), len(data) * 3 // 2} <= numbers, message
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.headers["x-should-retry"] == "false", "no wait makes room"
    reply = call(world, "small", "PUT", "/v1/adapters/huge", content=data * 2)
    assert "in all" in error_of(reply, 429, "storage_limit_exceeded")["message"]
    assert int(reply.headers["retry-after"]) >= 1
    for name in ("one", "again"):
        assert call(world, "small", "DELETE", f"/v1/adapters/{name}").is_success
    upload(world, "small", "two", 21, (201,))
    upload(world, "admin", "small~three", 22, (201,))
    for name in ("two", "three"):
        call(world, "small", "DELETE", f"/v1/adapters/{name}")


def test_uploads_at_once_do_not_get_past_the_stored_bytes(world):
    """Eight uploads at a time where there is room for three: three come in, however they meet."""
    options = ("--scope", "adapters,infer", "--tenant", "crowd")
    world.as_["crowd"] = make_key(world.store, *options)[1]
    files = [adapter_bytes(world.config, 700 + i, ranks=(2,)) for i in range(8)]
    assert len({len(f) for f in files}) == 1
    limit(world, "crowd", "--stored-bytes", len(files[0]) * 7 // 2)
    for _ in range(6):

        def put(i):
            url = world.url + f"/v1/adapters/c{i}"
            return httpx.put(url, content=files[i], headers=world.as_["crowd"], timeout=60)

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(put, range(8)))
        assert sorted(r.status_code for r in replies) == [201] * 3 + [429] * 5
        listed = call(world, "crowd", "GET", "/v1/adapters").json()["data"]
        mine = [c["name"] for c in listed if c["tenant"] == "crowd"]
        assert len(mine) == 3
        for name in mine:
            assert call(world, "crowd", "DELETE", f"/v1/adapters/{name}").is_success


# ---- the record of changes


def records(server, **query):
    reply = call(server, "admin", "GET", "/v1/audit", params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_every_change_is_recorded_with_its_outcome(world):
    page = records(world, limit=1000)
    last = page["data"][-1]["number"]
    first = upload(world, "a", "kept", 30, (201,)).json()
    upload(world, "a", "kept", 31)
    call(world, "a", "POST", "/v1/adapters/kept/rollback", json={"version": 1})
    call(world, "a", "PUT", "/v1/adapters/kept", content=b"garbage")
    call(world, "a", "DELETE", "/v1/adapters/shared", headers={"x-request-id": "try-1"})
    call(world, "a", "DELETE", "/v1/adapters/kept")
    found = records(world, after=last)["data"]
    assert [r["number"] for r in found] == sorted(r["number"] for r in found)
    ended = [r for r in found if r["outcome"] != "begun"]
    assert [(r["action"], r["object"], r["version"], r["outcome"]) for r in ended[:3]] == [
        ("adapter.publish", "acme~kept", 1, "done"),
        ("adapter.publish", "acme~kept", 2, "done"),
        ("adapter.rollback", "acme~kept", 1, "done"),
    ]
    assert ended[0]["digest"] == ended[2]["digest"] == first["digest"]
    assert ended[3]["outcome"] not in ("done", "begun")
    assert ended[3]["digest"] == hashlib.sha256(b"garbage").hexdigest()
    assert (ended[4]["request"], ended[4]["object"]) == ("try-1", "shared")
    assert "admin" in ended[4]["outcome"]
    assert (ended[5]["action"], ended[5]["outcome"]) == ("adapter.delete", "done")
    assert (ended[5]["version"], ended[5]["digest"]) == (1, first["digest"]), "what went"
    for record in found:
        assert (record["key"], record["tenant"]) == (world.keys["a"][0], "acme")
        assert abs(record["time"] - time.time()) < 60
    assert found[0]["outcome"] == "begun" and found[0]["digest"] == first["digest"], "a crash"
    begun = [r["request"] for r in found if r["outcome"] == "begun"]
    assert len(begun) == 5 and set(begun) <= {r["request"] for r in ended}
    one = records(world, after=last, limit=1)
    assert len(one["data"]) == 1 and one["has_more"]
    error_of(call(world, "admin", "GET", "/v1/audit?limit=0"), 400)
    error_of(call(world, "admin", "GET", "/v1/audit?after=x"), 400)
    command = ("keys", "audit", "--store", world.store, "--after", last, "--json")
    said = run_cli(*command, check=0).stdout.splitlines()
    assert [json.loads(line) for line in said] == found
    for line, record in zip(run_cli(*command[:-1], check=0).stdout.splitlines(), found):
        for part in (record["key"], record["action"], record["outcome"], record["object"]):
            assert part in line
        assert (record["digest"] or "-")[:12] in line


def test_changes_of_keys_are_recorded(world):
    key_id, _ = make_key(world.store, "--tenant", "gone")
    run_cli("keys", "revoke", key_id, "--store", world.store, check=0)
    actions = [r["action"] for r in records(world, limit=1000)["data"] if r["object"] == key_id]
    assert actions == ["key.make", "key.revoke"]


# ---- the command


def test_keys_refuses_what_makes_no_sense(tmp_path):
    store = tmp_path / "store"
    for arguments, code, said in (
        (("make", "--scope", "root"), 2, "infer, adapters or admin"),
        (("make", "--tenant", "a~b"), 1, "tenant"),
        (("make", "--adapters", "../x"), 1, "adapter name"),
        (("mak",), 2, "did you mean make"),
        (("revoke",), 2, "needs the id"),
        (("limit", "--requests-per-minute", "5"), 2, "--tenant"),
        (("limit", "--tenant", "t", "--requests-per-minute", "0.5"), 1, "whole number"),
        (("limit", "--tenant", "t", "--scope", "admin"), 2, "no use for --scope"),
        (("list", "--limit", "5"), 2, "no use for --limit"),
        (("make", "--stored-bytes", "5M"), 2, "no use for --stored-bytes"),
        (("make", "--scope="), 2, "infer, adapters or admin"),
        (("list", "--store", store / "none"), 1, "no catalog"),
        (("revoke", "key-1", "--store", store / "none"), 1, "no catalog"),
    ):
        where = () if "--store" in arguments else ("--store", store)
        run = run_cli("keys", *arguments, *where)
        assert run.returncode == code and said in run.stderr, (arguments, run.stderr)
    listed = json.loads(run_cli("keys", "list", "--store", store, "--json", check=0).stdout)
    assert listed == {"keys": [], "limits": []}, "what was refused left nothing behind"
    make_key(store, "--tenant", "one")
    run_cli("keys", "limit", "--tenant", "two", "--tokens-per-minute", 5, "--store", store, check=0)
    for tenant, found in (("one", (1, 0)), ("two", (0, 1)), ("none", (0, 0))):
        command = ("keys", "list", "--store", store, "--json", "--tenant", tenant)
        listed = json.loads(run_cli(*command, check=0).stdout)
        assert (len(listed["keys"]), len(listed["limits"])) == found, tenant
    quiet = run_cli("keys", "make", "-q", "--store", store, check=0)
    assert re.fullmatch(r"sora-[A-Za-z0-9_-]{43}\n", quiet.stdout) and quiet.stderr == ""
    assert "sora-" not in run_cli("keys", "list", "--store", store, check=0).stdout
    for path in store.rglob("*"):
        if path.is_file():
            assert quiet.stdout.strip().encode() not in path.read_bytes(), path


# ---- other servers' ways to the same adapters


def load(server, who, name, **fields):
    body = {"lora_name": name, "lora_path": "shared.safetensors", **fields}
    return call(server, who, "POST", "/v1/load_lora_adapter", json=body)


def unload(server, who, name):
    return call(server, who, "POST", "/v1/unload_lora_adapter", json={"lora_name": name})


def test_what_vllms_route_loads_is_the_tenants_own(world):
    error_of(load(world, "infer", "door"), 403, "insufficient_permissions")
    assert load(world, "a", "door").status_code == 200
    assert complete(world, "a", "door").status_code == 200
    error_of(complete(world, "b", "door"), 404, "model_not_found")
    assert unload(world, "b", "door").status_code == 404
    assert load(world, "b", "door").status_code == 200  # a name of its own
    error_of(load(world, "a", "shared", load_inplace=True), 403, "shared_adapter")
    error_of(unload(world, "a", "shared"), 403, "shared_adapter")
    error_of(load(world, "held", "other2"), 403)
    assert unload(world, "a", "door").status_code == 200
    assert complete(world, "b", "door").status_code == 200
    assert unload(world, "b", "door").status_code == 200
    records = call(world, "admin", "GET", "/v1/audit?limit=1000").json()["data"]
    of = [(r["action"], r["object"], r["tenant"]) for r in records if r["outcome"] == "done"]
    for tenant in ("acme", "bolt"):
        assert ("adapter.publish", f"{tenant}~door", tenant) in of
        assert ("adapter.delete", f"{tenant}~door", tenant) in of
    refused = [r["object"] for r in records if "shared by everyone" in r["outcome"]]
    assert refused.count("shared") >= 2


def numbers(server, who):
    reply = call(server, who, "GET", "/lora-adapters")
    assert reply.status_code == 200, reply.text
    return {item["path"]: item for item in reply.json()}


def test_numbers_and_scales_are_the_tenants_own(world):
    upload(world, "a", "scaled", 21)
    upload(world, "b", "scaled", 22)
    mine, theirs = numbers(world, "a"), numbers(world, "b")
    assert mine["scaled"]["id"] != theirs["scaled"]["id"]
    assert mine["shared"]["id"] == theirs["shared"]["id"]
    assert not [path for path in mine | theirs if "~" in path]
    base, own = tokens(world, "b", "tiny"), tokens(world, "a", "scaled")
    error_of(call(world, "infer", "POST", "/lora-adapters", json=[]), 403)
    scales = [{"id": mine["scaled"]["id"], "scale": 1}]
    assert call(world, "a", "POST", "/lora-adapters", json=scales).json() == {"success": True}
    assert tokens(world, "a", "tiny") == tokens(world, "infer", "tiny") == own != base
    assert tokens(world, "b", "tiny") == tokens(world, "admin", "tiny") == base
    assert numbers(world, "b")["scaled"]["scale"] == 0
    # Another's number is as unknown as one that nobody has.
    for number in (mine["scaled"]["id"], 31337):
        reply = call(world, "b", "POST", "/lora-adapters", json=[{"id": number, "scale": 1}])
        assert reply.status_code == 400
        assert reply.json()["error"]["message"] == "invalid adapter id"
        reply = complete(world, "b", "tiny", lora=[{"id": number, "scale": 1}])
        assert str(number) in error_of(reply, 404, "adapter_not_found")["message"]
    assert call(world, "a", "POST", "/lora-adapters", json=[]).status_code == 200
    assert tokens(world, "a", "tiny") == base


def test_a_composition_takes_only_what_its_caller_may_see(world):
    upload(world, "a", "part", 23)
    listed = [{"name": "shared"}, {"name": "part"}]
    assert complete(world, "a", "tiny", adapters=listed).status_code == 200
    error = error_of(complete(world, "b", "tiny", adapters=listed), 404, "model_not_found")
    assert "part" in error["message"] and "acme" not in error["message"]
    error_of(complete(world, "held", "tiny", adapters=listed), 404, "model_not_found")
