"""What other programs call a setting: lightning-hydra-template, Lightning, Hydra, FreqAI.

What means exactly the same here works under that name too. For the rest there is one sentence that
says how it is done here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

# These work: the same setting, with the same values.
RENAMED: Mapping[str, str] = {
    "callbacks.early_stopping.patience": "optimizer.early_stopping_patience",
    "data.batch_size": "batch_size",
    "datamodule.batch_size": "batch_size",
    "model.optimizer.lr": "lr",
    "model.optimizer.weight_decay": "optimizer.weight_decay",
    "paths.data_dir": "data_dir",
    "paths.log_dir": "outputs_dir",
    "paths.output_dir": "outputs_dir",
    "trainer.gradient_clip_val": "optimizer.gradient_clip_norm",
    "trainer.max_epochs": "epochs",
}

# What percoin does in any case.
DONE_ANYWAY: Collection[str] = frozenset(
    {"train=true", "test=true", "ckpt_path=null", "experiment=null", "debug=null"}
)

# Words that look like a setting and are none with this value.
NOT_WITH_VALUE: Mapping[str, str] = {
    "train=false": "a training is judged in the same run; what a saved model is worth says "
    "python -m percoin.report, and python -m percoin.signals scores it on newer bars",
    "test=false": "no model leaves a training without being judged on its test rows; for a quick "
    "look use debug=fdr",
    "seed=null": "every training has a seed, which its manifest records, so that it can be "
    "repeated; give a number, such as seed=1",
}

# Asks for another name of a setting.
NAMES: Mapping[str, str] = {
    "checkpoint": "resume",
    "coin": "symbol",
    "data_split_parameters.test_size": "split.test",
    "end_date": "end",
    "gpus": "trainer",
    "include_corr_pairlist": "features.references",
    "interval": "tf",
    "label_period_candles": "labels.horizon",
    "learning_rate": "lr",
    "market": "symbol",
    "max_epochs": "epochs",
    "n_epochs": "epochs",
    "pair": "symbol",
    "patience": "optimizer.early_stopping_patience",
    "seq_len": "lookback",
    "since": "start",
    "start_date": "start",
    "ticker": "symbol",
    "timeframe": "tf",
    "train_period_days": "history_days",
    "until": "end",
    "window_size": "lookback",
}

_SEARCH = "a search among settings is experiment=tune, with experiment.trials=20 of them"
_DEVICES = (
    "one process trains on one device: trainer=gpu; many markets are a sweep (-m), or fleet=true"
)
_CHECKPOINTS = (
    "percoin finds its checkpoints itself: resume=true goes on with the newest interrupted run of "
    "the market, init=pooled begins with the weights of a pool"
)
_PRINT = "--cfg job prints the config, and every run keeps its own in settings.json"

# How it is done here, by the key or the group that it lies in.
SENTENCES: Mapping[str, str] = {
    "callbacks": "checkpoints and early stopping are built in "
    "(optimizer.early_stopping_patience=10); callbacks of your own go to Lightning's Trainer in "
    "Python (docs/PYTHON.md)",
    "ckpt_path": _CHECKPOINTS,
    "data": "the data is a market and its bars: symbol=BTCUSDT tf=1h source=binance (or files, "
    "sample, simulated, store)",
    "data.num_workers": "windows are made in the training process, without loaders beside it; "
    "workers=N is the number of cores",
    "datamodule": "the data is a market and its bars: symbol=BTCUSDT tf=1h source=binance (or "
    "files, sample, simulated, store)",
    "extras": _PRINT,
    "fast_dev_run": "one batch of everything is debug=fdr",
    "freqai": "name the setting alone, as in history_days=365, labels.horizon=3 or "
    "features.extra=[volatility]",
    "freqai.identifier": "a registry of its own is models_dir=models/NAME",
    "freqai.train_period_days": "the history is history_days=365, of which split.train=0.7 is "
    "trained on",
    "freqaimodel": "what is trained is model=cnn_lstm, logistic, volatility, boosting, moves, or "
    "your own network: model._target_=MODULE:NAME",
    "hparams_search": _SEARCH,
    "hydra.job.chdir": "a run stays in the folder that it was called in; leave it out",
    "hydra.sweep.dir": "sweep=NAME names the folder of a sweep, in outputs_dir",
    "hydra.sweeper": _SEARCH,
    "hydra/sweeper": _SEARCH,
    "optimized_metric": f"{_SEARCH}; it maximises the skill on validation rows",
    "pair_whitelist": "the markets are symbol=BTCUSDT,ETHUSDT, with -m for one model each",
    "pairs": "the markets are symbol=BTCUSDT,ETHUSDT, with -m for one model each",
    "print_config": _PRINT,
    "resume_from_checkpoint": _CHECKPOINTS,
    "run_name": "outputs_dir=outputs/NAME keeps runs apart, and tags=[NAME] marks them",
    "task_name": "outputs_dir=outputs/NAME keeps runs apart, and tags=[NAME] marks them",
    "trainer.check_val_every_n_epoch": "every epoch is validated; leave it out",
    "trainer.deterministic": "every training can be repeated from its seed; leave it out",
    "trainer.devices": _DEVICES,
    "trainer.fast_dev_run": "one batch of everything is debug=fdr",
    "trainer.max_steps": "a training is as long as epochs says",
    "trainer.num_nodes": _DEVICES,
    "trainer.strategy": _DEVICES,
}


def how_here(key: str) -> str | None:
    """How percoin does what a key of another program does; None of an unknown one."""
    while key:
        if key in SENTENCES:
            return SENTENCES[key]
        key = key.rpartition(".")[0]
    return None
