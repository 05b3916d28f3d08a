"""One layer of many LSTMs at once, with few but large GPU kernels.

The equations are those of ``nn.LSTM`` (Hochreiter and Schmidhuber, 1997, with the forget
gate of Gers et al., 2000). Each bar takes one matrix product over all models and directions
and one elementwise function. The products with the inputs and the gradients of all weights do
not depend on the previous bar, so they are computed for all bars together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from percoin.training.fused import fused

# Input gate, forget gate, cell candidate, output gate: the order of ``nn.LSTM``.
N_GATES = 4


def recur(inputs: Tensor, from_input: Tensor, from_state: Tensor, bias: Tensor) -> Tensor:
    """Run M independent LSTMs over their inputs.

    Args:
        inputs: In the time order in which each LSTM reads them, shape (M, L, B, n_in).
        from_input: Input weights, shape (M, 4 * H, n_in).
        from_state: Recurrent weights, shape (M, 4 * H, H).
        bias: Shape (M, 4 * H).

    Returns:
        The hidden state after each bar, shape (M, L, B, H).
    """
    n_bars = inputs.shape[1]
    driven = torch.baddbmm(bias.unsqueeze(1), inputs.flatten(1, 2), from_input.transpose(1, 2))
    driven = torch.unflatten(driven, 1, (n_bars, -1))
    states: Tensor = _Recurrence.apply(driven, from_state.to(driven.dtype))  # type: ignore[no-untyped-call]
    return states


class _Recurrence(torch.autograd.Function):
    """The recurrent part of the LSTM, bar after bar; the input products are already computed.

    Inputs are ``driven``, shape (M, L, B, 4 * H), and the recurrent weights of the same type,
    shape (M, 4 * H, H). The output has shape (M, L, B, H). Under autocast the inputs have 16
    bits and the cells 32.
    """

    @staticmethod
    def forward(ctx: Any, driven: Tensor, from_state: Tensor) -> Tensor:
        advance = fused(_advance, driven.device)
        n_models, n_bars, n_rows, n_gates = driven.shape
        shape = n_models, n_rows, n_gates // N_GATES
        hidden = driven.new_zeros(shape)
        wide = torch.promote_types(driven.dtype, torch.float32)
        cell = driven.new_zeros(shape, dtype=wide)
        recurrent = from_state.transpose(1, 2)
        states, kept = [], []
        for bar in range(n_bars):
            *gates, hidden, cell = advance(driven[:, bar], torch.bmm(hidden, recurrent), cell)
            states.append(hidden)
            kept += [*gates, cell]
        found = torch.stack(states, dim=1)
        ctx.save_for_backward(from_state, found, *kept)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (of_states,) = gradients
        from_state, states, *kept = ctx.saved_tensors
        retreat = fused(_retreat, states.device)
        n_bars, n_kept = states.shape[1], N_GATES + 1
        of_cell = torch.zeros_like(kept[-1])
        from_later = torch.zeros_like(states[:, 0])
        before_all = torch.zeros_like(of_cell)
        found = []
        for bar in reversed(range(n_bars)):
            *gates, cell = kept[bar * n_kept : (bar + 1) * n_kept]
            before = kept[bar * n_kept - 1] if bar else before_all
            of_gates, of_cell = retreat(
                of_states[:, bar], from_later, of_cell, before, cell, *gates
            )
            from_later = torch.bmm(of_gates, from_state)
            found.append(of_gates)
        of_driven = torch.stack(found[::-1], dim=1)  # (M, L, B, 4 * H)
        # All bars except the first, whose previous state is zero.
        later = of_driven[:, 1:].flatten(1, 2)
        of_weights = torch.bmm(later.transpose(1, 2), states[:, :-1].flatten(1, 2))
        return of_driven, of_weights


def _advance(driven: Tensor, recurrent: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
    """One bar forward: the four gates, (M, B, H) each, the new hidden state and the new cell."""
    narrow = driven.dtype
    parts = (driven.to(cell.dtype) + recurrent).chunk(N_GATES, dim=-1)
    enter, keep, leave = parts[0].sigmoid(), parts[1].sigmoid(), parts[3].sigmoid()
    content = parts[2].tanh()
    cell = keep * cell + enter * content
    gates = tuple(gate.to(narrow) for gate in (enter, keep, content, leave))
    return *gates, (leave * cell.tanh()).to(narrow), cell


def _retreat(
    of_state: Tensor,
    from_later: Tensor,
    of_cell: Tensor,
    before: Tensor,
    cell: Tensor,
    enter: Tensor,
    keep: Tensor,
    content: Tensor,
    leave: Tensor,
) -> tuple[Tensor, Tensor]:
    """One bar backward: gradients of the gates before activation, (M, B, 4 * H), and of ``before``.

    Args:
        of_state: Gradient of the bar's hidden state from the layers above, shape (M, B, H).
        from_later: Gradient of the same state from the next bar.
        of_cell: Gradient of the bar's new cell from the next bar.
        before: The cell before the bar.
        cell: The cell after the bar.
        enter: The input gate.
        keep: The forget gate.
        content: The cell candidate.
        leave: The output gate.
    """
    wide, narrow = cell.dtype, enter.dtype
    enter, keep, content, leave = (gate.to(wide) for gate in (enter, keep, content, leave))
    of_hidden = of_state.to(wide) + from_later
    shown = cell.tanh()
    of_cell = of_cell + of_hidden * leave * (1 - shown * shown)
    of_gates = [
        of_cell * content * enter * (1 - enter),
        of_cell * before * keep * (1 - keep),
        of_cell * enter * (1 - content * content),
        of_hidden * shown * leave * (1 - leave),
    ]
    return torch.cat(of_gates, dim=-1).to(narrow), of_cell * keep
