#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes policy.pt: a small TorchScript policy as Python users save one, with what it answers to a few observations.

    python3 tests/data/make_policy.py tests/data/policy.pt
"""
import sys

import torch


class Policy(torch.nn.Module):
    """Six numbers in, logits of four actions out."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.LayerNorm(16), torch.nn.Tanh(), torch.nn.Dropout(0.5))
        self.head = torch.nn.Linear(16, 4)
        self.register_buffer("probe", torch.randn(5, 6))
        self.register_buffer("answer", torch.zeros(5, 4))

    def forward(self, observations):
        return self.head(self.body(observations))


torch.manual_seed(1)
policy = Policy().eval()
with torch.no_grad():
    policy.answer.copy_(policy(policy.probe))
torch.jit.script(policy.train()).save(sys.argv[1])
