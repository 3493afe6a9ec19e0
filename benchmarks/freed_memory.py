"""Measure how much CPU time a student loses to memory that is returned and fetched again.

Prints the time of training steps of convnet3 on 100 images of 28 px, as in the preset `dc`, the
kernel's share of it, and the process's peak of memory, with and without `keep_freed_memory`.
"""

import os
import subprocess
import sys

_STEPS = """
import resource, sys, torch
from d4m.classifiers.convnet import ConvNet
from d4m.compute import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    keep_freed_memory()
model, pixels = ConvNet(1, 28, 10), torch.randn(100, 1, 28, 28)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
def step():
    optimizer.zero_grad()
    model(pixels).square().mean().backward()
    optimizer.step()
for _ in range(3): step()
before = resource.getrusage(resource.RUSAGE_SELF)
for _ in range(20): step()
after = resource.getrusage(resource.RUSAGE_SELF)
user, kernel = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
print((user + kernel) / 20, kernel / (user + kernel), after.ru_maxrss / 1024)
"""
_ROUNDS = 3


def main() -> None:
    """Measure both in turn, and print the fastest of each."""
    best = {how: min(_measure(how) for _ in range(_ROUNDS)) for how in ("return", "keep")}
    for how, (seconds, kernel, peak) in best.items():
        print(f"{how}: {seconds:.3f} s of CPU a step, {kernel:.0%} in the kernel, {peak:.0f} MiB")
    print(f"ratio: {best['return'][0] / best['keep'][0]:.2f}")


def _measure(how: str) -> tuple[float, float, float]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", _STEPS, how], env=plain, capture_output=True, text=True, check=True
    )
    seconds, kernel, peak = (float(text) for text in done.stdout.split())
    return seconds, kernel, peak


if __name__ == "__main__":
    main()
