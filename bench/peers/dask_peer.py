"""Dask distributed: a local cluster with one worker process of one thread; submit and result, and map. Arguments: seconds a
part, a private directory."""
import logging
import sys

import dask
from dask.distributed import Client, LocalCluster

import measure


def main():
    seconds, directory = float(sys.argv[1]), sys.argv[2]
    dask.config.set({"distributed.worker.memory.spill": False, "distributed.admin.tick.interval": "1s"})
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None,
                      memory_limit="1GB", local_directory=directory, silence_logs=logging.ERROR) as cluster, \
            Client(cluster) as client:
        client.upload_file(measure.__file__)

        def submit(n):
            return client.submit(measure.feb, n, pure=False)

        latency = measure.rtt(lambda n: submit(n).result(), seconds)
        rates = [(measure.rate_window(submit, lambda f: f.result(), w, seconds), 1, w) for w in (16, 128)]
        for batch in (128, 1024):
            rates.append((measure.rate_batch(lambda a: client.gather(client.map(measure.feb, a, pure=False)), batch,
                                             seconds), batch, batch))
        measure.report(latency, rates)


if __name__ == "__main__":
    main()
