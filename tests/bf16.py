"""Tests of networks in bf16 need a processor that computes their LSTM so."""

import pytest
import torch

needs_bf16 = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU cannot compute in bf16"
)
