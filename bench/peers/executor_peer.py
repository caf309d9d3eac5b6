"""concurrent.futures.ProcessPoolExecutor with one worker: submit and result of each task, or map with
chunks. Arguments: submit | map, seconds a part."""
import sys
from concurrent.futures import ProcessPoolExecutor

import measure


def main():
    mode, seconds = sys.argv[1], float(sys.argv[2])
    with ProcessPoolExecutor(1) as pool:
        latency = measure.rtt(lambda n: pool.submit(measure.feb, n).result(), seconds)
        if mode == "submit":
            rates = [(measure.rate_window(lambda n: pool.submit(measure.feb, n), lambda f: f.result(), w, seconds), 1, w)
                     for w in (16, 64, 256)]
        else:
            rates = [(measure.rate_batch(lambda a: pool.map(measure.feb, a, chunksize=c), c * 8, seconds), c, c * 8)
                     for c in (16, 128, 1024)]
    measure.report(latency, rates)


if __name__ == "__main__":
    main()
