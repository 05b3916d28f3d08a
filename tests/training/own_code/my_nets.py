"""Networks and losses of a user's own, good and bad; tests name this file in ``plugins=``."""

import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self, n_features, lookback, width=8, kernels=(3, 3)):
        super().__init__()
        self.first = nn.Conv1d(n_features, width, kernels[0], padding=1)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width * lookback, 3)

    def forward(self, windows):
        hidden = self.norm(torch.relu(self.first(windows.transpose(1, 2))))
        return self.head(hidden.flatten(1))


class Bad(nn.Module):
    """Wrong in the way that ``how`` names."""

    def __init__(self, n_features, lookback, how):
        super().__init__()
        self.how = how
        self.head = nn.Linear(n_features * lookback, 3)
        if how == "unused":
            self.spare = nn.Linear(3, 3)
        if how == "flag buffer":
            self.register_buffer("mask", torch.ones(3, dtype=torch.bool))
        if how == "reads a tensor":
            self.scale = float(torch.ones(1))

    def forward(self, windows):
        if self.how == "sees the batch":
            windows = windows - windows.mean(0)
        logits = self.head(windows.flatten(1))
        if self.how == "random":
            logits = functional.dropout(logits, 0.2, training=not self.training)
        spoilt = {
            "two classes": lambda: logits[:, :2],
            "a list": lambda: [logits],
            "not finite": lambda: logits / 0,
            "detached": lambda: logits.detach(),
            "deaf": lambda: logits * 0 + self.head.bias,
            "wrong shape": lambda: logits @ windows,
        }
        return spoilt.get(self.how, lambda: logits)()


class NoModule:
    pass


class Centred(nn.Module):
    """A loss that has something to learn itself."""

    def __init__(self, share=0.01):
        super().__init__()
        self.share = share
        self.centre = nn.Parameter(torch.zeros(3))

    def forward(self, logits, labels):
        away = (logits - self.centre).square().mean()
        return functional.cross_entropy(logits, labels) + self.share * away


def focal(logits, labels, gamma=2.0):
    logs = functional.log_softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    return -((1 - logs.exp()) ** gamma * logs).mean()


def each_row(logits, labels):
    return functional.cross_entropy(logits, labels, reduction="none")


def takes_one(logits):
    return logits.mean()


def lets_go(logits, labels):
    return functional.cross_entropy(logits.detach(), labels)


class Broken(torch.optim.SGD):
    def step(self, closure=None):
        return self.defaults["momentum"] + self.state["momentum"]["momentum"]


class Stuck(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self):
        return [group["lr"] / (1 - self.last_epoch) for group in self.optimizer.param_groups]
