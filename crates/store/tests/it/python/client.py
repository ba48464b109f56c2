"""What a Python client does with a store: `client.py PORT SNAPSHOT` prints what it was told.

Numbers that two servers may not have in common (cluster, member, times) are left out, so that the output
for one server can be held against that for another.
"""

import sys
import threading

import pyetcd

client = pyetcd.client(host="127.0.0.1", port=int(sys.argv[1]), timeout=10)


def show(what, *told):
    print(what, *told)


def plain(pairs):
    return sorted((meta.key, value, meta.version) for value, meta in pairs)


client.put("/a/1", "one")
client.put("/a/2", "two")
client.put("/b", b"\x00\xff")
show("get", client.get("/a/1")[0], client.get("/b")[0], client.get("/none"))
show("prefix", plain(client.get_prefix("/a/")))
show("sorted", [value for value, _ in client.get_prefix("/a/", sort_order="descend", sort_target="key")])
show("range", plain(client.get_range("/a/1", "/b")))
show("all", plain(client.get_all()))
show("previous", client.put("/a/1", "uno", prev_kv=True).prev_kv.value)
show("if absent", client.put_if_not_exists("/a/1", "x"), client.put_if_not_exists("/a/3", "x"))
show("replace", client.replace("/a/1", "uno", "eins"), client.replace("/a/1", "uno", "un"))
show(
    "transaction",
    client.transaction(
        compare=[client.transactions.value("/a/1") == "eins", client.transactions.version("/a/2") > 0],
        success=[client.transactions.put("/a/4", "vier"), client.transactions.get("/a/2")],
        failure=[client.transactions.delete("/a/1")],
    )[0],
)

lease = client.lease(60, lease_id=77)
client.put("/leased", "x", lease=lease)
show("lease", lease.granted_ttl, [bytes(key) for key in lease.keys], lease.remaining_ttl > 50)
show("refreshed", [answer.TTL for answer in client.refresh_lease(77)])
lease.revoke()
show("revoked", client.get("/leased"))

heard, done = [], threading.Event()


def hear(answer):
    for event in answer.events:
        heard.append((type(event).__name__, event.key, event.value))
    if len(heard) >= 3:
        done.set()


watch = client.add_watch_prefix_callback("/w/", hear)
client.put("/w/1", "x")
client.put("/w/1", "y")
client.delete("/w/1")
show("watch", done.wait(10), heard)
client.cancel_watch(watch)

with client.lock("a-lock", ttl=60) as lock:
    show("lock", lock.is_acquired(), client.lock("a-lock", ttl=60).acquire(timeout=1))
show("deleted", client.delete("/b"), client.delete("/b"), client.delete_prefix("/a/").deleted)

revision = client.get_response("/w/1").header.revision
client.compact(revision, physical=True)
try:
    list(client.get_prefix("/a/", revision=2))
    show("compacted", "readable")
except Exception as err:
    show("compacted", type(err).__name__)
show("members", len(list(client.members)), "alarms", len(list(client.list_alarms())))
client.defragment()
with open(sys.argv[2], "wb") as file:
    client.snapshot(file)
show("snapshot", open(sys.argv[2], "rb").read(20)[16:20].hex())
client.close()
