"""concurrent.futures.ProcessPoolExecutor with one worker: submit and result, and map with chunks. Argument: seconds a part."""
import sys
from concurrent.futures import ProcessPoolExecutor

import measure


def main():
    seconds = float(sys.argv[1])
    with ProcessPoolExecutor(1) as pool:
        latency = measure.rtt(lambda n: pool.submit(measure.feb, n).result(), seconds)
        rates = [(measure.rate_window(lambda n: pool.submit(measure.feb, n), lambda f: f.result(), w, seconds), 1, w)
                 for w in (16, 256)]
        for chunk in (64, 512):
            n = chunk * 8
            rates.append((measure.rate_batch(lambda a: pool.map(measure.feb, a, chunksize=chunk), n, seconds), chunk, n))
    measure.report(latency, rates)


if __name__ == "__main__":
    main()
