"""Celery on Redis: late acks, results in Redis, prefetch on. As a module it is the application that `celery worker` loads; as a
program the producer. $PEER_REDIS: path of the server's Unix socket. Argument: seconds a part."""
import os
import sys

from celery import Celery, group

import measure

URL = "redis+socket://" + os.environ["PEER_REDIS"]
app = Celery("celery_peer", broker=URL, backend=URL)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=128, result_expires=60, worker_hijack_root_logger=False,
                task_serializer="json", result_serializer="json", broker_connection_retry_on_startup=True)


@app.task(name="feb")
def feb(n):
    return measure.feb(n)


def call(handle):
    return handle.get(timeout=30)


def main():
    seconds = float(sys.argv[1])
    measure.check(48, call(feb.delay(48)))  # the worker is there
    latency = measure.rtt(lambda n: call(feb.delay(n)), seconds)
    rates = [(measure.rate_window(feb.delay, call, w, seconds), 1, w) for w in (16, 128)]
    rates.append((measure.rate_batch(lambda a: call(group(feb.s(n) for n in a).apply_async()), 128, seconds), 128, 128))
    measure.report(latency, rates)


if __name__ == "__main__":
    sys.modules["celery_peer"] = sys.modules["__main__"]
    main()
