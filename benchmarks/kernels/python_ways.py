# SPDX-License-Identifier: MIT
"""Times the loops that people write in Python with torch, by default on one thread. Prints the time of the fastest
repetition in seconds.

    python3 python_ways.py ewc|l2|fisher|kl [THREADS]
"""
import sys
import time

import torch


def fastest(work, repetitions):
    work()
    best = float("inf")
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def penalty(with_importance):
    total, tensors = 30_000_000, 60
    anchors = [torch.rand(total // tensors) for _ in range(tensors)]
    importances = [torch.rand(total // tensors) for _ in range(tensors)]
    parameters = [torch.nn.Parameter(anchor * 1.01) for anchor in anchors]

    def work():
        loss = 0
        for parameter, anchor, importance in zip(parameters, anchors, importances):
            square = (parameter - anchor).pow(2)
            loss = loss + (importance * square if with_importance else square).sum()
        (0.5 * loss).backward()

    return fastest(work, 15)


def fisher():
    network = torch.nn.Sequential(
        torch.nn.Linear(256, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 121)
    )
    states = torch.randn(256, 256)
    with torch.no_grad():
        actions = torch.distributions.Categorical(logits=network(states)).sample()

    def work():
        squares = [torch.zeros_like(parameter) for parameter in network.parameters()]
        for state, action in zip(states, actions):
            network.zero_grad()
            torch.log_softmax(network(state), -1)[action].backward()
            for square, parameter in zip(squares, network.parameters()):
                square += parameter.grad**2

    return fastest(work, 3)


def divergence():
    teacher = 3 * torch.randn(4096, 121)
    student = torch.nn.Parameter(teacher + torch.randn(4096, 121))

    def work():
        student.grad = None
        torch.nn.functional.kl_div(
            torch.log_softmax(student, -1), torch.log_softmax(teacher, -1), reduction="batchmean", log_target=True
        ).backward()

    return fastest(work, 50)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    torch.manual_seed(1)
    print({"ewc": lambda: penalty(True), "l2": lambda: penalty(False), "fisher": fisher, "kl": divergence}[sys.argv[1]]())
