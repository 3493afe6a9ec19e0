"""Measure how much a busy neighbour slows a small network, by how long OpenMP threads spin.

Prints the time of a training step of convnet3 at 8 px, alone and next to a neighbour that keeps
both cores busy.
"""

import os
import subprocess
import sys

_STEP = """
import time, torch
from d4m.classifiers.convnet import ConvNet
torch.set_num_threads(2)
model, pixels = ConvNet(1, 8, 10), torch.randn(50, 1, 8, 8)
optimizer = torch.optim.AdamW(model.parameters())
def step():
    optimizer.zero_grad()
    model(pixels).square().mean().backward()
    optimizer.step()
for _ in range(20): step()
start = time.perf_counter()
for _ in range(150): step()
print((time.perf_counter() - start) / 150 * 1e3)
"""
_NEIGHBOUR = "import torch\nx = torch.randn(512, 512)\nwhile True: x @ x"


def main() -> None:
    """Measure each way to wait, alone and with a neighbour."""
    for wait in ({}, {"GOMP_SPINCOUNT": "3000"}, {"OMP_WAIT_POLICY": "passive"}):
        environment = os.environ | wait
        alone = _milliseconds(environment)
        neighbour = subprocess.Popen([sys.executable, "-c", _NEIGHBOUR], env=environment)
        together = _milliseconds(environment)
        neighbour.kill()
        neighbour.wait()
        how = wait or "default"
        ratio = together / alone
        print(f"{how}: alone {alone:.1f} ms, with neighbour {together:.1f} ms, {ratio:.1f}x")


def _milliseconds(environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", _STEP]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
