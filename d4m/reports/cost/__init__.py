"""The cost of a run before it: seconds per stage, memory and store, from rates of this machine.

Each stage says its work in pieces that can be counted, such as optimiser steps, calls of a denoiser
or images to score. A probe does a few pieces by the very code that a run calls, and so measures the
seconds of a piece on this device. Nothing here enters a key.

| module | holds |
|---|---|
| `pieces` | a kind of work, and how often it is done |
| `plan` | the units to compute, and the counts that work follows from |
| `generator_work`, `student_work` | the work of each stage |
| `bench`, `*_probes` | what does some pieces of each kind |
| `rates` | the seconds of a piece, measured once per device and versions |
| `estimate` | seconds, memory and store of every stage |
| `sizes` | the bytes that a stage stores and holds |
"""
