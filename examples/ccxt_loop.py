"""percoin's signals for a market of any exchange that ccxt knows, in dry mode: no order is sent.

python examples/ccxt_loop.py binance BTC/USDT 15m models
"""

import sys
import time

import ccxt

from percoin import Predictor
from percoin.bars.schema import is_simulated
from percoin.errors import ConfigError, PercoinError
from percoin.types import Timeframe

ARRIVAL_SECS = 3.0


def newest_rows(client: ccxt.Exchange, pair: str, tf: str, n_bars: int) -> list[list[float]]:
    """The newest bars, of which the last still runs; page by page, as many exchanges limit one."""
    rows = client.fetch_ohlcv(pair, tf, limit=min(n_bars, 1000))
    n_page = len(rows)
    while rows and len(rows) < n_bars:
        since = rows[0][0] - n_page * Timeframe(tf).milliseconds
        page = client.fetch_ohlcv(pair, tf, since, n_page)
        older = [row for row in page if row[0] < rows[0][0]]
        if not older:
            # The exchange keeps no more; predict says how many are missing.
            break
        rows = older + rows
    return rows


def step(client: ccxt.Exchange, predictor: Predictor, pair: str, tf: str, held: str) -> str:
    """Answer for the newest closed bar; return the side that would be held now."""
    symbol = pair.partition(":")[0].replace("/", "")
    manifest = predictor.model(symbol, Timeframe(tf)).manifest
    if is_simulated(origin := manifest.bars.origin):
        raise ConfigError(f"{pair} {tf}: its model learnt from {origin!r}: train it on real bars")
    rows = newest_rows(client, pair, tf, manifest.bars_to_load + 1)
    ends = client.milliseconds() - Timeframe(tf).milliseconds
    rows = [row for row in rows if row[0] <= ends]
    prediction = predictor.predict(rows, symbol=symbol, tf=tf)
    wanted = prediction.signal.name
    print(f"{prediction.ts:%Y-%m-%d %H:%M} {pair} {wanted} {prediction.confidence:.2f}", flush=True)
    if wanted != held:
        print(f"dry run: {held} -> {wanted} at {rows[-1][4]}, {prediction.levels}", flush=True)
    return wanted


def main(exchange: str, pair: str, tf: str, models_dir: str) -> None:
    """Ask after every close; what fails is asked again."""
    client, predictor = getattr(ccxt, exchange)(), Predictor(models_dir)
    held, secs = "NO_TRADE", Timeframe(tf).milliseconds / 1000
    while True:
        try:
            held = step(client, predictor, pair, tf, held)
        except (PercoinError, ccxt.NetworkError) as error:
            print(f"no answer: {error}", file=sys.stderr, flush=True)
        time.sleep(secs - time.time() % secs + ARRIVAL_SECS)


if __name__ == "__main__":
    main(*sys.argv[1:])
