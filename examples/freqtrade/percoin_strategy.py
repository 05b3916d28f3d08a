"""percoin's signals as a freqtrade strategy: docs/TRADING.md says how to use it.

In freqtrade's config, beside its own keys:

    "percoin": {"models_dir": "models", "require_accepted": true, "min_confidence": 0.0}
"""

import logging
from datetime import datetime, timedelta

from freqtrade.enums import RunMode
from freqtrade.exceptions import OperationalException
from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy
from pandas import DataFrame

from percoin import Predictor
from percoin.bars.schema import is_simulated
from percoin.errors import PercoinError, RegistryError
from percoin.inference.model import ServedModel
from percoin.labels import known_horizon
from percoin.registry.manifest import StoredVerdict
from percoin.types import Timeframe

log = logging.getLogger(__name__)


class PercoinStrategy(IStrategy):
    """Trades what the served model of each pair says.

    A bar that a model was made from has no signal: ``predict_range`` hides its answer, and the
    column ``percoin_part`` says what the bar was to the model. A position ends with the opposite
    signal, or after the bars that the model's label looks ahead.
    """

    INTERFACE_VERSION = 3
    timeframe = "15m"
    stoploss = -0.1
    minimal_roi: dict[str, float] = {}  # noqa: RUF012 - freqtrade's idiom

    def __init__(self, config: dict) -> None:
        super().__init__(config)
        settings = config.get("percoin", {})
        self.can_short = config.get("trading_mode", "spot") != "spot"
        self.require_accepted = settings.get("require_accepted", True)
        self.min_confidence = settings.get("min_confidence", 0.0)
        self.predictor = Predictor(settings.get("models_dir", "models"))
        self.told: set[str] = set()
        self.bar_length = Timeframe(config.get("timeframe", self.timeframe))
        models = filter(None, map(self.find_model, config["exchange"]["pair_whitelist"]))
        self.startup_candle_count = max((m.manifest.history_bars for m in models), default=0)

    def find_model(self, pair: str) -> ServedModel | None:
        """The model that may answer for a pair; without one, the log says once why not."""
        try:
            model = self.predictor.model(symbol_of(pair), self.bar_length)
        except RegistryError as error:
            problem = str(error)
        else:
            gate, origin = model.manifest.gate, model.manifest.bars.origin
            is_accepted = gate.verdict is StoredVerdict.ACCEPTED
            if is_simulated(origin):
                problem = f"{pair}: its model learnt from {origin!r}: train it on real bars"
            elif is_accepted or not self.require_accepted:
                return model
            else:
                problem = f"{pair}: its model is {gate.verdict}: {'; '.join(gate.reasons)}"
        if problem not in self.told:
            self.told.add(problem)
            log.warning("no signals: %s", problem)
        return None

    def populate_indicators(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Add what the model said at the close of each bar; nothing where it had seen the bar."""
        pair = metadata["pair"]
        if self.find_model(pair) is None or dataframe.empty:
            return dataframe.assign(percoin_signal=None, percoin_confidence=float("nan"))
        bars = dataframe[["date", "open", "high", "low", "close", "volume"]]
        is_live = self.dp.runmode in (RunMode.LIVE, RunMode.DRY_RUN)
        # A bot trades on the newest bar alone, and the network takes its time for each.
        first = bars["date"].iloc[-1] if is_live else None
        try:
            answers = self.predictor.predict_range(
                bars, first, symbol=symbol_of(pair), tf=self.bar_length
            )
        except PercoinError as error:
            raise OperationalException(str(error)) from error
        said = answers.to_frame().drop(columns="ts").add_prefix("percoin_")
        return dataframe.merge(said, how="left", left_on="date", right_index=True)

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Enter as the signal says, if its probability is high enough."""
        is_sure = dataframe["percoin_confidence"] >= self.min_confidence
        dataframe["enter_long"] = (is_sure & (dataframe["percoin_signal"] == "LONG")).astype(int)
        dataframe["enter_short"] = (is_sure & (dataframe["percoin_signal"] == "SHORT")).astype(int)
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict) -> DataFrame:
        """Leave at the opposite signal."""
        dataframe["exit_long"] = dataframe["enter_short"]
        dataframe["exit_short"] = dataframe["enter_long"]
        return dataframe

    def custom_exit(
        self, pair: str, trade: Trade, current_time: datetime, **_: object
    ) -> str | None:
        """Leave when the time is over that the signal was made for."""
        model = self.find_model(pair)
        horizon = (model and known_horizon(model.manifest.label_rule)) or 1
        held: timedelta = current_time - trade.open_date_utc
        return "horizon" if held >= horizon * self.bar_length.timedelta else None


def symbol_of(pair: str) -> str:
    """``BTCUSDT`` of ``BTC/USDT`` and of ``BTC/USDT:USDT``."""
    return pair.partition(":")[0].replace("/", "")
